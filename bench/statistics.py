"""Statistics of paired timings: ratios, their intervals, and when to stop measuring."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtrit

RESAMPLES = 2000
_APART = 0.125


@dataclass(frozen=True)
class Interval:
    """A speedup ratio (baseline time / candidate time) with its 95 % interval and the number of pairs behind it."""

    ratio: float
    lo: float
    hi: float
    pairs: int

    @property
    def half_width(self) -> float:
        """Half the width of the interval in log space: about the relative error of the ratio."""
        return float(np.log(self.hi / self.lo) / 2)

    def excludes(self, ratio: float) -> bool:
        """Say whether a given ratio lies outside the interval."""
        return not self.lo <= ratio <= self.hi


def paired_ratio(
    baseline_s: Sequence[float], candidate_s: Sequence[float], *, rng: np.random.Generator, stopping: bool = False
) -> Interval:
    """Summarize paired timings as the median of per-pair log-ratios with a bootstrap 95 % interval.

    The percentile interval of few pairs is too narrow; it is expanded about the median as Student's t is wider than the
    normal distribution (Hesterberg 2015, "What Teachers Should Know About the Bootstrap").

    Args:
        baseline_s: seconds of each baseline call, one a pair.
        candidate_s: seconds of the candidate call of the same pair.
        rng: draws the bootstrap resamples of whole pairs.
        stopping: the pairs may end at any of them, as soon as the interval is narrow: one of 97.5 % is taken then, of which
            about 95 % remain (`python -m diffopt.bench.studies.stopping`).

    Raises:
        ValueError: the two differ in length, are empty, or hold a time that is not positive and finite.
    """
    baseline, candidate = np.asarray(baseline_s, dtype=np.float64), np.asarray(candidate_s, dtype=np.float64)
    if baseline.shape != candidate.shape or not baseline.size:
        raise ValueError(f"need pairs, got {baseline.size} baseline and {candidate.size} candidate times")
    if not all(np.all((times > 0) & (times < np.inf)) for times in (baseline, candidate)):
        raise ValueError("every time must be positive and finite")
    logs = np.log(baseline / candidate)
    draws = rng.integers(logs.size, size=(RESAMPLES, logs.size))
    tail = 0.0125 if stopping else 0.025
    middle, bounds = np.median(logs), np.quantile(np.median(logs[draws], axis=1), [tail, 1 - tail])
    lo, hi = middle + (bounds - middle) * _expansion(logs.size, tail)
    return Interval(float(np.exp(middle)), float(np.exp(lo)), float(np.exp(hi)), int(logs.size))


@functools.cache
def _expansion(pairs: int, tail: float) -> float:
    if pairs < 2:
        return 1.0
    return float(np.sqrt(pairs / (pairs - 1)) * stdtrit(pairs - 1, 1 - tail) / ndtri(1 - tail))


def states(baseline_s: Sequence[float], candidate_s: Sequence[float]) -> tuple[tuple[str, int, float], ...]:
    """Return the states of the machine that pairs were timed in, fastest first: name, pairs, and ratio in it.

    Times of the baseline fall into two states where the best cut leaves medians on both sides further than an eighth
    apart, and the spread within each less than half of that between them; else there is one.
    """
    order = np.argsort(baseline_s)
    baseline, candidate = np.asarray(baseline_s)[order], np.asarray(candidate_s)[order]
    logs, ratios = np.log(baseline), np.log(baseline / candidate)

    def state(name: str, part: slice) -> tuple[str, int, float]:
        return name, len(ratios[part]), float(np.exp(np.median(ratios[part])))

    cuts = range(2, len(logs) - 1)
    within = [logs[:cut].var() * cut + logs[cut:].var() * (len(logs) - cut) for cut in cuts]
    if within:
        cut = cuts[int(np.argmin(within))]
        apart = float(np.median(logs[cut:]) - np.median(logs[:cut]))
        spread = max(float(logs[:cut].std()), float(logs[cut:].std()))
        if apart > _APART and spread < apart / 2:
            return state("fast", slice(None, cut)), state("slow", slice(cut, None))
    return (state("one", slice(None)),)


def stop_reason(
    interval: Interval, *, pairs: tuple[int, int], half_width: float = 0.02, threshold: float | None = None
) -> str | None:
    """Say why a race may stop now, or None to go on.

    Args:
        interval: what is known so far.
        pairs: the fewest and the most pairs to measure.
        half_width: stop once the ratio is known this well.
        threshold: a ratio the candidate has to beat; stop once the interval excludes it.
    """
    fewest, most = pairs
    if interval.pairs < fewest:
        return None
    if interval.half_width < half_width:
        return "precise"
    if threshold is not None and interval.excludes(threshold):
        return "decided"
    return "most pairs" if interval.pairs >= most else None


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` (0 to 100) percent of the values lie, linearly interpolated."""
    return float(np.percentile(np.asarray(values, dtype=np.float64), share))


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return percentile(values, 50)
