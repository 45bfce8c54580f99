"""Steps by constants: the images of the scheduler's own steps, and nothing read on the host inside the loop."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from diffopt.backends.base import BackendError
from diffopt.backends.runtime import unroll_steps, witnesses
from diffopt.ir.description import build_module
from diffopt.ir.emit_pipeline import emit_pipeline
from diffopt.ir.source_directory import describe_directory
from diffopt.passes.pipeline import Trace, applied

SOLVERS = ("own", "ddim", "euler", "dpmsolver++", "deis")


def _load(directory: Path, folder: Path, trace: str) -> Any:
    module = build_module(describe_directory(directory, steps=6, guidance=2.0, name="tiny"))
    file = folder / "pipeline.py"
    file.write_text(emit_pipeline(applied(Trace.parse(trace), module)), encoding="utf-8")
    pipe = runpy.run_path(str(file))["load"]()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _image(pipe: Any, **given: Any) -> torch.Tensor:
    found: torch.Tensor = pipe(
        "a red circle", generator=torch.Generator().manual_seed(0), output_type="pt", **given
    ).images
    return found


class _HostReads(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts how often a value of a tensor is read on the host."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.slow
@pytest.mark.parametrize("solver", SOLVERS)
def test_images_are_those_of_the_scheduler(tiny_directory: Path, tmp_path: Path, solver: str) -> None:
    before = f"reduce-steps{{steps=5 solver={solver}}}"
    expected = _image(_load(tiny_directory, tmp_path, before))
    pipe = _load(tiny_directory, tmp_path, f"{before},unroll-steps")
    assert (_image(pipe) - expected).abs().max() < 1e-4
    assert [(w.transform, w.count) for w in witnesses(pipe)] == [("unroll_steps", 5)]


@pytest.mark.slow
def test_other_schedules_step_as_they_did(tiny_directory: Path, tmp_path: Path) -> None:
    plain, pipe = (_load(tiny_directory, tmp_path, trace) for trace in ("", "unroll-steps"))
    for given in ({"num_inference_steps": 4}, {"eta": 1.0}):
        assert torch.equal(_image(pipe, **given), _image(plain, **given))
    assert next(iter(witnesses(pipe))).count == 0


@pytest.mark.slow
def test_no_step_waits_for_the_host(tiny_directory: Path, tmp_path: Path) -> None:
    reads = []
    for trace in ("", "unroll-steps"):
        pipe = _load(tiny_directory, tmp_path, trace)
        step, counter = pipe.scheduler.step, _HostReads()

        def counting(*args: Any, step: Any = step, counter: Any = counter, **kwargs: Any) -> Any:
            with counter:
                return step(*args, **kwargs)

        counting.__signature__ = __import__("inspect").signature(step)  # type: ignore[attr-defined]
        pipe.scheduler.__dict__["step"] = counting
        _image(pipe)
        reads.append(counter.count)
    assert reads[0] > 0
    assert reads[1] == 0


def test_rows_that_fit_nothing_are_refused(tiny_directory: Path) -> None:
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(tiny_directory)
    for times, weights in (([9.0], []), ([9.0], [[1.0]]), ([9.0], [[1.0, 0.5, 1.0, 0.5]])):
        with pytest.raises(BackendError, match=r"do(es)? not fit|takes a weight"):
            unroll_steps(pipe, "scheduler", timesteps=times, weights=weights)
