"""Every pass that promises exact images keeps it, on every layout that ships, step by step and in the picture."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from xdsl.dialects.builtin import ModuleOp

from diffopt.backends.base import BackendError
from diffopt.bench import models
from diffopt.ir.description import build_module
from diffopt.ir.emit_pipeline import emit_pipeline
from diffopt.ir.identity import context
from diffopt.passes.base import DiffusionPass, Refusal, Tier, registry
from diffopt.passes.pipeline import Trace, run

pytestmark = pytest.mark.slow
TOLERANCE = 1e-3
"""Of the denoiser in float32 at each step, as relative L2 error: the tier's own (docs/measuring.md)."""

BOUND = 1 / 255
"""How far a value of a picture, from 0 to 1, may be from the baseline's."""

STEPS = 3
SHIPPED = tuple(name for name in models.shipped() if name != "demo:shapes-v")
"""One model of each layout: the parts of demo:shapes-v are those of demo:shapes."""
COMPILERS = ("capture-step", "compile", "compile-regional", "compile-vae")
"""Without their code generator there is nothing to see, and with it minutes: `python -m diffopt.bench.passes` measures them."""

EXACT = [
    found
    for found in registry().values()
    if found.tier is Tier.EXACT
    and not found.on_request
    and found.name not in COMPILERS
    # Without a GPU, kernels are interpreted, which takes minutes: tests/backends/kernels.
    and (found.devices != ("cuda",) or torch.cuda.is_available())
]


class _Teacher:
    """The latents that a baseline's run went through, and what its denoiser said of each."""

    def __init__(self, pipe: Any, call: dict[str, Any]) -> None:
        self.steps: list[tuple[torch.Tensor, torch.Tensor]] = []
        step = pipe.scheduler.step

        def noting(output: torch.Tensor, timestep: Any, sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            found = step(output, timestep, sample, *args, **kwargs)
            self.steps.append((output.clone(), found[0].clone()))
            return found

        self.picture = _with_step(pipe, noting, call)

    def errors(self, pipe: Any, call: dict[str, Any]) -> list[float]:
        """Return how far off a pipeline is at each step, prediction and next latent, when it is put on the same latents."""
        found: list[float] = []
        step, left = pipe.scheduler.step, iter(self.steps)

        def taught(output: torch.Tensor, timestep: Any, sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            own = step(output, timestep, sample, *args, **kwargs)
            expected, after = next(left)
            found.extend((_distance(output, expected), _distance(own[0], after)))
            return (after,) if isinstance(own, tuple) else type(own)(prev_sample=after)

        _with_step(pipe, taught, call)
        return found


def _with_step(pipe: Any, step: Any, call: dict[str, Any]) -> torch.Tensor:
    import functools

    own = pipe.scheduler.__dict__.get("step")
    pipe.scheduler.__dict__["step"] = functools.wraps(pipe.scheduler.step)(step)
    try:
        return _picture(pipe, call)
    finally:
        if own is None:
            del pipe.scheduler.__dict__["step"]
        else:
            pipe.scheduler.__dict__["step"] = own


def _picture(pipe: Any, call: dict[str, Any]) -> torch.Tensor:
    found: torch.Tensor = pipe(**call, generator=torch.Generator().manual_seed(0), output_type="pt").images
    return found


def _distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


def _load(found: type[DiffusionPass] | None, model: str, folder: Path) -> Any:
    builtin: Any = models.builtin(model)
    module = build_module(models.describe(builtin, steps=STEPS))
    trace = Trace() if found is None else Trace((_asked(found, module),))
    changed = run(trace, module)
    if isinstance(changed, Refusal):
        pytest.skip(f"refused for {model}: {changed.reason}")
    file = folder / "pipeline.py"
    file.write_text(emit_pipeline(changed), encoding="utf-8")
    try:
        pipe = runpy.run_path(str(file))["load"]()
    except BackendError as error:
        pytest.skip(str(error))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _asked(found: type[DiffusionPass], module: ModuleOp) -> DiffusionPass:
    """Return a pass with its defaults, or where these are refused, with the first options that are exact and are not."""
    default = found()
    if default.refusal(module) is None:
        return default
    fitting = found.schedule_space(context(), module)
    return next((made for made in fitting if getattr(made, "precision", "f32") == "f32"), default)


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, _Teacher]:
    """A run of each model as it ships."""
    folder = tmp_path_factory.mktemp("baseline")
    return {model: _Teacher(_load(None, model, folder), _call(model)) for model in SHIPPED}


def _call(model: str) -> dict[str, Any]:
    builtin: Any = models.builtin(model)
    return {**builtin.inputs(builtin.prompts("calibration", 1)), **builtin.arguments}


@pytest.mark.parametrize("model", SHIPPED)
@pytest.mark.parametrize("found", EXACT, ids=lambda found: found.name)
def test_an_exact_pass_says_the_same_of_the_same_latents(
    teachers: dict[str, _Teacher],
    tmp_path: Path,
    model: str,
    found: type[DiffusionPass],
) -> None:
    pipe, teacher = _load(found, model, tmp_path), teachers[model]
    picture = _picture(pipe, _call(model))
    assert (picture - teacher.picture).abs().max() <= BOUND
    errors = teacher.errors(pipe, _call(model))
    assert max(errors, default=0.0) <= TOLERANCE, errors
