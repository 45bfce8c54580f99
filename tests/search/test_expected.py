from __future__ import annotations

import math

import numpy as np
import pytest

from diffopt.search.expected import expected_gains, normal_cdf, reach
from diffopt.search.selection import REFERENCE, gains


def points(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([rng.uniform(-4, 0, count), rng.uniform(-75, -20, count), rng.uniform(-0.5, 0.5, count)], axis=1)


def test_a_sure_point_gains_what_it_adds() -> None:
    front, offered = points(12, 0), points(20, 1)
    assert expected_gains(front, REFERENCE, offered, np.zeros_like(offered)) == pytest.approx(gains(front, offered))


def test_an_unsure_point_gains_the_mean_of_what_it_may_add() -> None:
    front, mean = points(8, 2), points(3, 3)
    deviation = np.full_like(mean, 0.1) * [3, 60, 1]
    rng = np.random.default_rng(4)
    drawn = [gains(front, mean + deviation * rng.standard_normal(mean.shape)) for _ in range(3000)]
    assert expected_gains(front, REFERENCE, mean, deviation) == pytest.approx(np.mean(drawn, axis=0), rel=0.1, abs=0.05)


def test_without_a_front_everything_inside_the_corner_is_a_gain() -> None:
    mean = np.array([[-1.0, -40.0, 0.0]])
    volume = float(np.prod(REFERENCE - mean[0]))
    assert expected_gains(np.empty((0, 3)), REFERENCE, mean, np.zeros((1, 3))) == pytest.approx([volume])


def test_beyond_the_corner_nothing_is_gained_for_sure() -> None:
    mean = np.array([[0.5, -40.0, 0.0]])
    assert expected_gains(points(5, 5), REFERENCE, mean, np.zeros((1, 3))) == pytest.approx([0.0])


def test_the_normal_distribution_is_that_of_the_library() -> None:
    z = np.linspace(-6, 6, 200)
    exact = [0.5 * math.erfc(-value / math.sqrt(2)) for value in z]
    assert normal_cdf(z) == pytest.approx(exact, abs=1e-7)


def test_what_is_reached_grows_with_the_end() -> None:
    reached = reach(np.array([-1.0, 0.0, 1.0]), np.zeros(1), np.ones(1))[:, 0]
    assert reached == pytest.approx([0.0833, 0.3989, 1.0833], abs=1e-3)
