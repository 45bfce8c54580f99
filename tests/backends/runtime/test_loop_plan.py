"""Which graphs a captured loop holds is known before anything runs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from diffopt.backends.runtime.loop_plan import Kind, LoopPlan, kept_bytes, loop_plan


def test_a_loop_is_a_few_graphs() -> None:
    plan = loop_plan((True, False, True, False), (True, True, False, False))
    assert isinstance(plan, LoopPlan)
    assert [str(kind) for kind in plan.distinct] == ["full", "shallow", "full-alone", "shallow-alone"]


def test_guidance_that_comes_back_is_not_captured() -> None:
    assert "comes back" in str(loop_plan((True,) * 3, (True, False, True)))


def test_the_first_step_is_full() -> None:
    assert "first step" in str(loop_plan((False, True), (True, True)))


def test_two_derivatives_are_not_captured() -> None:
    assert "more than one" in str(loop_plan((True, False), (True, True), order=2))


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(0, 60))
def test_forecasts_know_how_far_they_reach(full: list[bool], guided: int) -> None:
    full[0] = True
    plan = loop_plan(full, [step < guided for step in range(len(full))], order=1)
    assert isinstance(plan, LoopPlan)
    assert len(plan.distinct) <= 4
    last = 0
    for step, is_full in enumerate(full):
        assert plan.kinds[step] == Kind(is_full, step < guided)
        assert plan.ahead[step] == (0 if is_full else step - last)
        assert plan.gaps[step] == (1 / (step - last) if is_full and step else 0)
        last = step if is_full else last


def test_what_is_kept_is_counted() -> None:
    one = kept_bytes((1, 4, 8, 8), [(2, 77, 16)], [(2, 8, 4, 4)], depth=2, order=1, item=2)
    assert one == 2 * (4 * 256 + 2464 + 2 * 256)
