"""Static schedules: full steps in order, the first always one of them."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xdsl.dialects.builtin import ModuleOp, StringAttr

from diffopt.ir.dialect import scheduler_of
from diffopt.passes.caching.schedule import Schedule, full_steps, refuse_schedule, steps_by_drift


@given(st.integers(2, 100), st.integers(2, 20), st.sampled_from(get_args(Schedule)), st.integers(0, 10))
def test_a_schedule_starts_full_and_stays_within_the_steps(
    steps: int, interval: int, schedule: Schedule, warm: int
) -> None:
    warm = min(warm, steps - 1)
    full = full_steps(steps, interval, schedule, warm)
    assert full[0] == 0
    assert full == tuple(sorted(set(full)))
    assert full[-1] < steps
    assert set(range(warm)) <= set(full)
    assert len(full) <= warm + 1 + -(-(steps - warm) // interval)


def test_early_and_late_mirror_each_other() -> None:
    assert full_steps(20, 4, "uniform") == (0, 4, 8, 12, 16)
    assert full_steps(20, 4, "early") == (0, 1, 5, 9, 14)
    assert full_steps(20, 4, "late") == (0, 5, 10, 14, 18)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50), st.floats(0.01, 2), st.integers(1, 10))
def test_no_step_reuses_what_has_drifted_too_far(drift: list[float], threshold: float, longest: int) -> None:
    full = steps_by_drift(drift, threshold, longest)
    moved, last = 0.0, 0
    for step, change in enumerate(drift, 1):
        moved = 0.0 if step in full else moved + change
        last = step if step in full else last
        assert moved <= threshold
        assert step - last <= longest


def test_a_uniform_drift_is_a_uniform_schedule() -> None:
    assert steps_by_drift([0.1] * 9, 0.25, 50) == (0, 3, 6, 9)
    assert steps_by_drift([0.0] * 9, 0.25, 3) == (0, 4, 8)


@pytest.mark.parametrize("full", [range(50), [0]])
def test_refuses_a_heun_scheduler_and_a_schedule_that_reuses_nothing(
    standard_module: ModuleOp, full: list[int]
) -> None:
    module = standard_module.clone()
    if len(full) == 1:
        scheduler_of(module).properties["class_name"] = StringAttr("diffusers.HeunDiscreteScheduler")
    refused = refuse_schedule(module, tuple(full))
    assert refused is not None
    assert refused.reason.startswith("the Heun solver" if len(full) == 1 else "all of the 50 steps")
