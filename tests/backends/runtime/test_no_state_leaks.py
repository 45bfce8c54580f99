"""A request leaves nothing for the next, for each pass of the registry that can run here, whatever came before it."""

from __future__ import annotations

import dataclasses
import inspect
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from xdsl.dialects.builtin import ModuleOp

from diffopt.backends.base import BackendError
from diffopt.backends.runtime.attachment import ATTRIBUTE
from diffopt.bench.stand_ins import ADAPTER, write_stand_ins
from diffopt.ir.description import Adapter, build_module
from diffopt.ir.emit_pipeline import emit_pipeline
from diffopt.ir.emit_statements import statements
from diffopt.ir.source_directory import describe_directory, describe_hub
from diffopt.passes.base import DiffusionPass, Refusal, registry
from diffopt.passes.pipeline import Trace, run

pytestmark = pytest.mark.slow
Load = Callable[[], tuple[Any, dict[str, Any]]]

TINY_OF = {"transformer": "pixart", "flux": "flux", "flow": "sd3"}
"""The tiny pipeline for each kind of module that examples are written for."""

NAMED = ("distill-lora", "fuse-lora", "tiny-vae")
"""Passes of what a user names, an adapter or an autoencoder: they are given an untrained one."""

WITHIN = {"capture-step": 1e-4}
"""How far, of its norm, a second request may be from a first one that runs in another way; later ones are the second's.

The first request of captured steps is an ordinary one that is listened to, the next ones are the scheduler's recurrence
in closed form, which rounds otherwise.
"""

CLASSES = {"pixart": "PixArtSigmaPipeline", "flux": "FluxPipeline"}

ELSEWHERE = {
    "context-parallel": "needs two GPUs",
    "drop-safety-checker": "needs a safety checker: test_drop_safety_checker.py",
    "rewrite": "needs code: tests/llm",
}
"""Passes that cannot run on the tiny pipelines alone, and where they are tried instead."""


@pytest.fixture(autouse=True)
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch.compile return what it is given: what it remembers is its own, what is tried is ours round it."""
    monkeypatch.setattr(torch, "compile", lambda model=None, **_: model)


@pytest.fixture
def load_of(
    tiny_directory: Path,
    tmp_path: Path,
    tiny_of: Callable[[str], Any],
    transformer_module: ModuleOp,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[str], Load | str]:
    """Return a function from a pass's name to what makes a fresh pipeline with it, or to why there is none."""

    def unet(trace: str) -> Load | str:
        described = describe_directory(tiny_directory, steps=3, guidance=2.0, name="tiny")
        if trace.startswith(NAMED):
            monkeypatch.chdir(tmp_path)
            write_stand_ins(tmp_path, tiny_directory)
        if trace == "fuse-lora":
            described = dataclasses.replace(described, adapters=(Adapter("lora", str(tmp_path / ADAPTER)),))
        changed = run(Trace.parse(trace), build_module(described))
        if isinstance(changed, Refusal):
            return str(changed)
        file = tmp_path / "pipeline.py"
        file.write_text(emit_pipeline(changed), encoding="utf-8")
        return lambda: (runpy.run_path(str(file))["load"](), {"prompt": "a red circle", "output_type": "pt"})

    def transformer(trace: str, kind: str) -> Load | str:
        module = transformer_module
        if kind in CLASSES:
            nowhere = tmp_path / "nowhere"
            described = describe_hub(f"a/{kind}", CLASSES[kind], cache_folder=nowhere)
            module = build_module(dataclasses.replace(described, height=16, width=16))
        shorter = Trace.parse("reduce-steps{steps=3 solver=own}").passes
        changed = run(Trace((*shorter, *Trace.parse(trace).passes)), module)
        if isinstance(changed, Refusal):
            return str(changed)

        def load() -> tuple[Any, dict[str, Any]]:
            pipe, call = tiny_of(kind)
            names: dict[str, Any] = {"pipe": pipe}
            for statement in statements(changed):
                for library, name in statement.imports:
                    exec(f"from {library} import {name}", names)  # noqa: S102
                exec(statement.line(pipe="pipe", engines="None"), names)  # noqa: S102
            size = {"height": 16, "width": 16, "num_inference_steps": 3, "guidance_scale": 3.0}
            return pipe, {**call, **size, "output_type": "latent"}

        return load

    def found(name: str) -> Load | str:
        trace = _trace(registry()[name])
        tried = unet(trace)
        kinds = dict.fromkeys(TINY_OF[e.model] for e in registry()[name].examples if e.model in TINY_OF)
        for kind in kinds:
            if isinstance(tried, str):
                tried = transformer(trace, kind)
        return tried

    return found


def _trace(pass_type: type[DiffusionPass]) -> str:
    """Return the pass as one asks for it, behind the passes it requires."""
    if pass_type.name == "distill-lora":
        return "distill-lora{adapter=models/lcm-lora kind=hyper-sd steps=2}"
    if pass_type.on_request:
        example = next(example.trace for example in pass_type.examples if example.expect)
        return str(Trace(Trace.parse(example).passes[:1]))
    short = {"cache-adaptive": "{threshold=0.4}", "reduce-steps": "{steps=2}", "tile-vae": "{tile=16}"}
    ahead = {"forecast-features": "cache-features{interval=2},"}
    own = {
        "cache-dit": "{warm=1}",
        "fit-timesteps": '{timesteps="900,300"}',
        "cache-features": "{interval=2}",
        "cache-blocks": "{interval=2}",
    }
    return f"{ahead.get(pass_type.name, '')}{pass_type.name}{(short | own).get(pass_type.name, '')}"


def _image(pipe: Any, call: dict[str, Any], **given: Any) -> torch.Tensor:
    pipe.set_progress_bar_config(disable=True)
    images: torch.Tensor = pipe(**{**call, "generator": torch.Generator().manual_seed(0), **given}).images
    return images


class _Stopped(Exception):
    """Raised in the middle of a request."""


def _stop(*_: Any, **__: Any) -> None:
    raise _Stopped


@pytest.mark.parametrize("name", list(registry()))
def test_each_request_is_as_in_a_fresh_pipeline(load_of: Callable[[str], Load | str], name: str) -> None:
    if name in ELSEWHERE:
        pytest.skip(ELSEWHERE[name])
    if registry()[name].devices == ("cuda",) and not torch.cuda.is_available():
        pytest.skip("kernels are interpreted here, which takes minutes: tests/backends/kernels")
    load = load_of(name)
    if isinstance(load, str):
        pytest.skip(f"not for the tiny pipelines: {load}")
    other = {"num_inference_steps": 2}
    try:
        expected = _image(*load())
    except (BackendError, RuntimeError) as error:
        if not any(word in str(error) for word in ("CUDA", "requires accelerator")):
            raise
        pytest.skip(str(error).splitlines()[0])
    fresh, call = load()
    expected_other = _image(fresh, call, **other)
    pipe, call = load()
    state = pipe.__dict__.get(ATTRIBUTE)
    sharing = (state.pipeline_class if state else type(pipe))(**pipe.components)
    # A pipeline that shares the parts, and so what was done to their weights, but no request of the first.
    shared = _image(sharing, {**call, **other, "guidance_scale": 2.0, **_size(call)})
    assert torch.equal(_image(pipe, call), expected)
    again = _image(pipe, call)
    assert (again - expected).norm() <= WITHIN.get(name, 0) * expected.norm(), "a second request"
    assert torch.equal(_image(pipe, call, **other), expected_other), "a change of steps"
    with pytest.raises(_Stopped):
        _image(pipe, call, **{_callback(pipe): _stop})
    assert torch.equal(_image(pipe, call), again), "after a request that raised"
    if isinstance(call.get("prompt"), str):
        batch = _image(pipe, {**call, "prompt": [call["prompt"]] * 2})
        assert len(batch) == 2
        assert torch.equal(_image(pipe, call), again), "a change of batch"
    assert torch.equal(_image(sharing, {**call, **other, "guidance_scale": 2.0, **_size(call)}), shared), "shared parts"


def _callback(pipe: Any) -> str:
    """Return the argument by which a pipeline takes what it calls between steps."""
    names = inspect.signature(type(pipe).__call__).parameters
    return next(name for name in ("callback_on_step_end", "callback") if name in names)


def _size(call: dict[str, Any]) -> dict[str, int]:
    return {key: call.get(key, size) for key, size in (("height", 48), ("width", 64))}


def test_what_is_tried_elsewhere_is_a_pass() -> None:
    assert set(ELSEWHERE) <= set(registry())
