from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from diffopt.blame import Blame, blame


@given(st.integers(1, 40), st.data())
def test_one_bad_change_is_named_in_fewer_than_two_log_n_plus_four_measurements(
    count: int, data: st.DataObject
) -> None:
    culprit = data.draw(st.integers(0, count - 1))
    found = blame(count, lambda chosen: culprit in chosen)
    assert found.culprits == (culprit,)
    assert found.measured < 2 * math.log2(count) + 4


@given(st.integers(2, 12), st.data())
def test_two_changes_that_are_bad_only_together_are_both_named(count: int, data: st.DataObject) -> None:
    pair = data.draw(st.sets(st.integers(0, count - 1), min_size=2, max_size=2))
    assert set(blame(count, lambda chosen: pair <= set(chosen)).culprits) == pair


@given(st.integers(1, 12), st.integers(0, 11))
def test_a_change_that_needs_the_one_before_it_is_named_with_it(count: int, culprit: int) -> None:
    culprit %= count

    def legal(chosen: tuple[int, ...]) -> bool:
        return culprit not in chosen or culprit == 0 or culprit - 1 in chosen

    found = blame(count, lambda chosen: culprit in chosen, legal=legal)
    assert found.culprits[-1] == culprit
    assert set(found.culprits) <= {culprit - 1, culprit}


def test_nothing_is_blamed_where_nothing_is_bad() -> None:
    assert blame(5, lambda chosen: False) == Blame((), 1, (((0, 1, 2, 3, 4), False),))


def test_no_program_is_measured_twice_and_the_limit_is_kept() -> None:
    seen: list[tuple[int, ...]] = []

    def bad(chosen: tuple[int, ...]) -> bool:
        seen.append(chosen)
        return {1, 4, 6, 9} <= set(chosen)

    found = blame(10, bad, most=8)
    assert len(seen) == len(set(seen)) == found.measured <= 9
    assert {1, 4, 6, 9} <= set(found.culprits)
