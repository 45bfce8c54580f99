from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffopt.search.selection import REFERENCE, Points, front, gains, hypervolume, survivors

coordinates = st.tuples(
    st.integers(-12, 2).map(lambda n: n / 4), st.integers(-60, -10).map(float), st.integers(-4, 7).map(lambda n: n / 4)
)
clouds = st.lists(coordinates, min_size=1, max_size=12).map(lambda rows: np.array(rows, dtype=np.float64))


def dominates(a: Points, b: Points) -> bool:
    return bool((a <= b).all() and (a < b).any())


def volume_by_inclusion(points: Points) -> float:
    """Measure the union of boxes on the grid that their corners span."""
    inside = points[(points < REFERENCE).all(axis=1)]
    axes = [np.unique([*inside[:, j], REFERENCE[j]]) for j in range(3)]
    total = 0.0
    for i, j, k in np.ndindex(*(len(a) - 1 for a in axes)):
        corner = np.array([axes[0][i], axes[1][j], axes[2][k]])
        if (inside <= corner).all(axis=1).any():
            total += np.prod([axes[d][n + 1] - axes[d][n] for d, n in enumerate((i, j, k))])
    return float(total)


@settings(deadline=None)
@given(clouds)
def test_hypervolume_is_the_volume_of_the_union(points: Points) -> None:
    assert hypervolume(points) == pytest.approx(volume_by_inclusion(points), abs=1e-9)


@settings(deadline=None)
@given(clouds, st.lists(st.booleans(), min_size=12, max_size=12))
def test_the_front_is_what_nothing_feasible_dominates(points: Points, missed: list[bool]) -> None:
    violations = np.array(missed[: len(points)], dtype=np.float64)
    feasible = [i for i in range(len(points)) if violations[i] == 0]
    expected = [i for i in feasible if not any(dominates(points[j], points[i]) for j in feasible)]
    assert sorted(front(points, violations)) == expected


@settings(deadline=None)
@given(clouds, st.lists(st.integers(0, 3), min_size=12, max_size=12))
def test_survivors_obey_constraint_domination(points: Points, missed: list[int]) -> None:
    violations = np.array(missed[: len(points)], dtype=np.float64)
    order = list(survivors(points, violations))
    assert sorted(order) == list(range(len(points)))
    place = {index: at for at, index in enumerate(order)}
    for a, b in np.ndindex(len(points), len(points)):
        better = violations[a] < violations[b] or (
            violations[a] == violations[b] == 0 and dominates(points[a], points[b])
        )
        if better:
            assert place[a] < place[b]


def test_within_a_rank_the_larger_contribution_comes_first() -> None:
    points = np.array([[-1.0, -30.0, 0.0], [-1.01, -29.9, 0.0], [-3.0, -20.0, 0.0]])
    assert survivors(points, np.zeros(3))[0] == 2


@settings(deadline=None)
@given(clouds, clouds)
def test_a_gain_is_the_difference_of_two_volumes(points: Points, offered: Points) -> None:
    expected = [hypervolume(np.vstack([points, row])) - hypervolume(points) for row in offered]
    assert gains(points, offered) == pytest.approx(expected, abs=1e-9)


def test_gains_over_nothing_are_whole_volumes() -> None:
    offered = np.array([[-1.0, -40.0, 0.0], [5.0, -40.0, 0.0]])
    assert gains(np.empty((0, 3)), offered) == pytest.approx([hypervolume(offered[:1]), 0.0])
