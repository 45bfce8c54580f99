"""The search for a solver of few steps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffopt import engine_bars
from diffopt.bench.studies.solvers import best, traces


def test_the_best_is_the_nearest_of_those_with_as_many_steps() -> None:
    rows = {
        "a": {"steps": 2, "psnr_median": 30.0},
        "b": {"steps": 2, "psnr_median": 33.0},
        "c": {"steps": 3, "psnr_median": 40.0},
    }
    assert (best(rows, 2), best(rows, 3)) == ("b", "c")


def test_every_solver_and_spacing_is_tried_also_for_numbers_between_those_of_the_space() -> None:
    six, seven = (traces("demo:shapes", steps, {}, fit=False) for steps in (6, 7))
    assert len(six) > 8
    assert seven == [trace.replace("steps=6", "steps=7") for trace in six]


def test_a_solver_that_was_fitted_is_not_fitted_again() -> None:
    known = {'fit-solver{timesteps="9"}': {"steps": 2, "psnr_median": 1.0}}
    assert traces("demo:shapes", 2, known, fit=True)[-1] == 'fit-solver{timesteps="9"}'


def test_arms_of_few_steps_take_what_the_search_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "solvers.json"
    file.write_text(json.dumps({engine_bars.MODEL: {"found": {"steps": 3, "psnr_median": 40.0}}}))
    monkeypatch.setattr(engine_bars, "RESULTS", file)
    arms = engine_bars.arms()
    assert arms["3 steps"] == f"found,{engine_bars.WHOLE}"
    assert arms["2 steps"].startswith("reduce-steps{steps=2 solver=deis},")
