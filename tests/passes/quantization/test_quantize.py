"""Quantization is one transform of the denoiser, before any engine."""

from __future__ import annotations

import pytest
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import components, denoiser_of
from diffopt.passes.base import Refusal
from diffopt.passes.pipeline import Trace, applied, key, run


@pytest.mark.parametrize("scheme", ["int8-weights", "int8-dynamic", "int4-weights"])
def test_adds_one_transform_to_the_denoiser_alone(standard_module: ModuleOp, scheme: str) -> None:
    module = applied(Trace.parse(f"quantize{{scheme={scheme}}}"), standard_module)
    (transform,) = denoiser_of(module).transforms
    assert (transform.transform.data, transform.arguments) == ("quantize", {"scheme": scheme})
    assert sum(len(component.transforms) for component in components(module).values()) == 1


@pytest.mark.parametrize("engine", ["export{scope=components}", "export{scope=denoiser}", "compile"])
def test_refuses_what_has_no_torch_weights_any_more(standard_module: ModuleOp, engine: str) -> None:
    result = run(Trace.parse(f"{engine},quantize"), standard_module)
    assert isinstance(result, Refusal)
    assert result.rule == "order"


def test_a_whole_pipeline_engine_takes_it_along_whichever_comes_first(standard_module: ModuleOp) -> None:
    one, other = "quantize", "export{scope=pipeline}"
    assert key(Trace.parse(f"{one},{other}"), standard_module) == key(Trace.parse(f"{other},{one}"), standard_module)


def test_comes_before_an_engine(standard_module: ModuleOp) -> None:
    module = applied(Trace.parse("quantize,export{scope=denoiser}"), standard_module)
    assert [t.transform.data for t in denoiser_of(module).transforms] == ["quantize", "export"]
