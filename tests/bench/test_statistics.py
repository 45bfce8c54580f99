from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffopt.bench.statistics import Interval, median, paired_ratio, percentile, states, stop_reason

times = st.lists(st.floats(0.001, 100), min_size=1, max_size=30)


@given(times, st.floats(0.1, 10))
@settings(max_examples=50, deadline=None)
def test_a_constant_ratio_comes_back_exactly_whatever_the_drift(baseline_s: list[float], ratio: float) -> None:
    interval = paired_ratio(baseline_s, [time / ratio for time in baseline_s], rng=np.random.default_rng(0))
    assert [interval.lo, interval.ratio, interval.hi] == pytest.approx([ratio] * 3)


@given(times, st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_the_interval_holds_the_median(baseline_s: list[float], seed: int) -> None:
    rng = np.random.default_rng(seed)
    candidate_s = rng.lognormal(sigma=0.3, size=len(baseline_s)).tolist()
    interval = paired_ratio(baseline_s, candidate_s, rng=rng)
    assert interval.lo <= interval.ratio * (1 + 1e-9)
    assert interval.ratio <= interval.hi * (1 + 1e-9)


def test_the_interval_covers_the_true_ratio_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        drift = np.cumsum(rng.normal(0, 0.05, 20))
        baseline_s, candidate_s = np.exp(drift + rng.normal(0, 0.03, 20)), np.exp(drift + rng.normal(0, 0.03, 20)) / 2
        covered += not paired_ratio(baseline_s.tolist(), candidate_s.tolist(), rng=rng).excludes(2.0)
    assert covered >= 180


def test_the_same_generator_gives_the_same_interval() -> None:
    one, two = (paired_ratio([1, 2, 3, 4], [1, 1, 2, 2], rng=np.random.default_rng(5)) for _ in range(2))
    assert one == two


@pytest.mark.parametrize(("baseline_s", "candidate_s"), [([], []), ([1.0], [1.0, 2.0]), ([0.0], [1.0])])
def test_refuses_what_are_no_pairs(baseline_s: list[float], candidate_s: list[float]) -> None:
    with pytest.raises(ValueError, match=r"pairs|positive"):
        paired_ratio(baseline_s, candidate_s, rng=np.random.default_rng(0))


@pytest.mark.parametrize(
    ("interval", "threshold", "reason"),
    [
        (Interval(2.0, 1.99, 2.01, 4), None, None),
        (Interval(2.0, 1.99, 2.01, 5), None, "precise"),
        (Interval(2.0, 1.5, 2.5, 5), None, None),
        (Interval(2.0, 1.5, 2.5, 5), 1.4, "decided"),
        (Interval(2.0, 1.5, 2.5, 5), 2.6, "decided"),
        (Interval(2.0, 1.5, 2.5, 5), 2.4, None),
        (Interval(2.0, 1.5, 2.5, 30), None, "most pairs"),
    ],
)
def test_a_race_stops_when_it_knows_enough(interval: Interval, threshold: float | None, reason: str | None) -> None:
    assert stop_reason(interval, pairs=(5, 30), threshold=threshold) == reason


def test_percentiles_interpolate() -> None:
    assert percentile([1, 2, 3, 4, 5], 10) == pytest.approx(1.4)
    assert median([3, 1, 2, 10]) == pytest.approx(2.5)


def test_two_states_of_the_machine_are_told_apart_with_the_ratio_in_each() -> None:
    baseline = [1.0, 1.3, 1.01, 1.31, 0.99, 1.29, 1.0, 1.3]
    candidate = [0.5, 0.5, 0.505, 0.51, 0.495, 0.49, 0.5, 0.5]
    fast, slow = states(baseline, candidate)
    assert (fast[0], fast[1], slow[0], slow[1]) == ("fast", 4, "slow", 4)
    assert fast[2] == pytest.approx(2.0, rel=0.02)
    assert slow[2] == pytest.approx(2.6, rel=0.02)


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.3])
def test_noise_is_no_second_state(noise: float) -> None:
    times = np.exp(np.random.default_rng(0).normal(0, noise, 30)).tolist()
    assert [name for name, _, _ in states(times, times)] == ["one"]


@pytest.mark.parametrize("times", [[float("inf")] * 3, [float("nan")] * 3, [0.0] * 3])
def test_times_that_no_clock_gives_are_refused(times: list[float]) -> None:
    with pytest.raises(ValueError, match="positive and finite"):
        paired_ratio(times, times, rng=np.random.default_rng(0))
