from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffopt.attribution import EXACT_UP_TO, Subset, attribute, orders, subsets


def measured(
    count: int, worth: list[float], together: float = 0.0
) -> tuple[dict[Subset, float], dict[Subset, np.ndarray]]:
    """Values that add up, but for what the first two are worth together; draws of 1 % noise."""
    rng = np.random.default_rng(0)
    chosen = orders(count, rng=np.random.default_rng(1))
    values = {
        part: sum(worth[i] for i in part) + (together if {0, 1} <= part else 0.0) for part in subsets(count, chosen)
    }
    return values, {part: value + rng.normal(0, 0.01, 400) for part, value in values.items()}


@given(st.integers(1, 7), st.data())
def test_the_effects_sum_to_the_measured_total(count: int, data: st.DataObject) -> None:
    worth = data.draw(st.lists(st.floats(-2, 2), min_size=count, max_size=count))
    chosen = orders(count, rng=np.random.default_rng(1))
    values, draws = measured(count, worth, together=0.7 if count > 1 else 0.0)
    found = attribute(count, chosen, values, draws)
    assert sum(effect.shapley for effect in found.effects) == pytest.approx(found.total)
    assert found.total_interval[0] < found.total < found.total_interval[1]


def test_where_changes_add_up_each_gets_its_own_worth() -> None:
    values, draws = measured(3, [0.5, -0.1, 1.0])
    found = attribute(3, orders(3, rng=np.random.default_rng(1)), values, draws)
    assert [effect.shapley for effect in found.effects] == pytest.approx([0.5, -0.1, 1.0])
    assert [effect.left_out for effect in found.effects] == pytest.approx([0.5, -0.1, 1.0])


def test_what_two_are_worth_together_is_shared_and_lost_with_either() -> None:
    values, draws = measured(2, [0.0, 0.0], together=1.0)
    found = attribute(2, orders(2, rng=np.random.default_rng(1)), values, draws)
    assert [effect.shapley for effect in found.effects] == pytest.approx([0.5, 0.5])
    assert [effect.left_out for effect in found.effects] == pytest.approx([1.0, 1.0])


def test_few_changes_take_all_orders_and_many_take_some_with_their_reverses() -> None:
    assert len(orders(EXACT_UP_TO, rng=np.random.default_rng(0))) == 24
    some = orders(8, rng=np.random.default_rng(0), sampled=6)
    assert len(some) == 6
    assert all(order[::-1] in some for order in some)
