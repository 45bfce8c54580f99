"""Teacher forcing: each step of the candidate's denoiser on the baseline's own latents."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from diffopt.backends.runtime.capture_step import CAPTURED
from diffopt.bench.evaluate import Evaluator, Measured, Program
from diffopt.bench.teacher import MISSING, Lesson, layer_errors, step_errors
from diffopt.bench.teaching import taught

TinyProgram = Callable[..., Program]

OFF_IN_ONE_STEP = """
_load = load
def load(**options):
    pipe = _load(**options)
    forward, calls = pipe.unet.forward, [0]
    def off(*args, **kwargs):
        calls[0] += 1
        result = forward(*args, **kwargs)
        sample = result[0] * {factor} if calls[0] % 3 == 2 else result[0]
        return (sample,)
    pipe.unet.forward = off
    return pipe
"""


def lesson(**arrays: object) -> Lesson:
    named = {name.replace("_", "."): np.asarray(value, np.float32) for name, value in arrays.items()}
    return Lesson(("a cat",), (0,), Path("lesson"), named, "float32")


@pytest.mark.parametrize(("factor", "tier"), [(1.0005, "exact"), (1.002, "near")])
def test_an_error_in_one_step_decides_whether_a_program_is_exact(
    evaluator: Evaluator, tiny_program: TinyProgram, factor: float, tier: str
) -> None:
    outcome = evaluator.evaluate(tiny_program("off", tail=OFF_IN_ONE_STEP.format(factor=factor)), pairs=(2, 2))
    assert isinstance(outcome, Measured), outcome
    assert outcome.tier == tier
    assert outcome.fidelity.denoiser_dtype == "float32"
    assert outcome.fidelity.denoiser_error == pytest.approx(factor - 1, rel=0.01)


def test_steps_that_are_missing_or_too_many_or_of_another_shape_are_wrong_by_all_they_are() -> None:
    known = lesson(out_0=np.ones(4), out_1=np.ones(4))
    assert step_errors(known, {"out.0": np.ones(4, np.float32)}) == (0.0, MISSING)
    three = {f"out.{i}": np.ones(4, np.float32) for i in range(3)}
    assert step_errors(known, three) == (0.0, 0.0, MISSING)
    assert step_errors(known, {"out.0": np.ones(2, np.float32), "out.1": np.full(4, np.nan, np.float32)}) == (1.0, 1.0)


def test_what_guidance_and_scheduler_make_of_right_answers_counts_too() -> None:
    known = lesson(out_0=np.ones(4), in_0=np.ones(4), out_1=np.ones(4), in_1=[2.0, 0.0])
    given = {**known.arrays, "in.1": np.asarray([2.0, 0.5], np.float32)}
    assert step_errors(known, given) == (0.0, 0.25)


def test_a_denoiser_that_is_never_called_cannot_be_asked() -> None:
    assert step_errors(lesson(out_0=np.ones(4)), {}) is None


def test_layers_are_compared_in_the_order_they_ran_where_they_have_one_size() -> None:
    ours = {"layer.0.00001.2.b": [1.0, 0.0], "layer.0.00002.2.a": [0.0, 2.0], "layer.0.00003.9.c": [1.0]}
    theirs = {"layer.0.00001.2.b": [1.0, 0.0], "layer.0.00004.2.a": [0.0, 1.0], "layer.0.00003.4.c": [1.0]}
    known, given = ({name: np.asarray(value, np.float32) for name, value in part.items()} for part in (ours, theirs))
    found = layer_errors(Lesson(("a cat",), (0,), Path("lesson"), known, "float32"), given, 0)
    assert list(found.items()) == [("b", 0.0), ("a", 0.5)]


def test_steps_that_were_captured_cannot_be_asked(tmp_path: Path) -> None:
    unet = torch.nn.Linear(2, 2)
    unet.__dict__[CAPTURED] = object()
    assert taught(SimpleNamespace(unet=unet), lambda: None, None, tmp_path / "out", layers=False)["calls"] == 0
