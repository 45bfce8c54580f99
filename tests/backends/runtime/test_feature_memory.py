from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diffopt.backends.runtime.feature_memory import FeatureMemory


@given(order=st.integers(0, 2), full=st.lists(st.integers(1, 4), min_size=3, max_size=5), ahead=st.integers(1, 3))
def test_a_straight_line_is_carried_on_exactly_and_a_constant_kept(order: int, full: list[int], ahead: int) -> None:
    memory, step = FeatureMemory(order), 0
    slope = torch.randn(2, 3) if order else torch.zeros(2, 3)
    for gap in full:
        step += gap
        memory.keep(step, (1 + step * slope,))
    found = memory.at(step + ahead, 2)
    assert found is not None
    assert torch.allclose(found[0], 1 + (step + ahead) * slope, atol=1e-3)


def test_the_forecast_is_the_one_of_diffusers() -> None:
    taylor = pytest.importorskip("diffusers.hooks.taylorseer_cache")
    values = [torch.randn(1, 4) for _ in range(3)]
    memory = FeatureMemory(2)
    state = taylor.TaylorSeerState(torch.float32, max_order=2)
    for step, value in zip((0, 3, 5), values, strict=True):
        memory.keep(step, (value,))
        state.current_step = step
        state.update((value,))
    state.current_step = 7
    found = memory.at(7, 1)
    assert found is not None
    assert torch.allclose(found[0], state.predict()[0], atol=1e-5)


def test_the_conditional_half_is_taken_out_and_replaced() -> None:
    memory = FeatureMemory()
    both = torch.arange(8.0).reshape(4, 2)
    memory.keep(0, (both,))
    half = memory.at(1, 2)
    assert half is not None
    assert torch.equal(half[0], both[2:])
    memory.keep(2, (torch.zeros(2, 2),))
    joined = memory.at(3, 4)
    assert joined is not None
    assert torch.equal(joined[0], torch.cat([both[:2], torch.zeros(2, 2)]))


def test_features_of_another_batch_are_forgotten() -> None:
    memory = FeatureMemory(1)
    memory.keep(0, (torch.ones(2, 1),))
    assert memory.at(1, 3) is None
    memory.keep(2, (torch.ones(3, 1),))
    assert memory.at(3, 2) is None
    memory.clear()
    assert memory.at(3, 3) is None
