"""Engines of a component, of three, or of the whole pipeline."""

from __future__ import annotations

import importlib.util

import pytest
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import components
from diffopt.passes.base import Refusal
from diffopt.passes.compilation.export import Export
from diffopt.passes.pipeline import Trace, applied, run
from diffopt.sources import lift


@pytest.mark.parametrize(
    ("scope", "parts"),
    [("denoiser", ["unet"]), ("components", ["text_encoder", "unet", "vae"]), ("pipeline", ["pipeline"])],
)
def test_a_scope_is_these_parts(standard_module: ModuleOp, scope: str, parts: list[str]) -> None:
    module = applied(Trace.parse(f"export{{scope={scope} backend=onnxruntime}}"), standard_module)
    assert [name for name, component in components(module).items() if component.transforms] == parts
    for name in parts:
        (transform,) = components(module)[name].transforms
        assert transform.arguments == {"backend": "onnxruntime", "precision": "f32"}


@pytest.mark.parametrize("first", ["denoiser", "components", "pipeline"])
@pytest.mark.parametrize("second", ["denoiser", "components", "pipeline"])
def test_no_part_is_exported_twice(standard_module: ModuleOp, first: str, second: str) -> None:
    result = run(Trace.parse(f"export{{scope={first}}},export{{scope={second}}}"), standard_module)
    assert isinstance(result, Refusal)
    assert result.rule in ("one-of", "one-engine")


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("demo:shapes-xl", ["text_encoder", "text_encoder_2", "unet", "vae"]),
        ("demo:shapes-pixart", ["text_encoder", "transformer", "vae"]),
        ("demo:shapes-flow", ["text_encoder", "text_encoder_2", "transformer", "vae"]),
    ],
)
def test_other_classes_are_exported_by_parts_and_whole(source: str, parts: list[str]) -> None:
    module = lift(source).module
    for scope, expected in (("components", parts), ("denoiser", parts[-2:-1]), ("pipeline", ["pipeline"])):
        made = applied(Trace.parse(f"export{{scope={scope}}}"), module)
        assert [name for name, part in components(made).items() if part.transforms] == sorted(
            expected, key=list(components(made)).index
        )


def test_a_call_that_was_not_seen_as_one_program_is_refused(modules: dict[str, ModuleOp]) -> None:
    refused = Export(scope="pipeline").refuse(modules["flux"])
    assert refused is not None
    assert "guidance is distilled" in refused.reason or "not of FluxPipeline yet" in refused.reason


def test_refuses_a_precision_that_the_backend_lacks(standard_module: ModuleOp) -> None:
    refused = Export(backend="onnxruntime", precision="bf16").refuse(standard_module)
    assert refused is not None
    assert refused.rule == "unsupported-precision"


def test_refuses_without_the_package_and_says_how_to_get_it(
    standard_module: ModuleOp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    refused = Export().refuse(standard_module)
    assert refused is not None
    assert refused.reason == "needs openvino, which is not installed: pip install 'diffopt[cpu]'"
