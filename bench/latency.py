"""Race a candidate against the baseline: interleaved pairs in random order, the same fresh prompt and seed for both."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from diffopt.bench.outcome import Latency
from diffopt.bench.resident import Images
from diffopt.bench.statistics import median, paired_ratio, stop_reason

Call = Callable[[list[str], list[int]], tuple[float, Images]]
"""Run a pipeline on prompts and seeds; return the seconds it took, by the parent's clock, and the images."""

Draw = Callable[[], tuple[list[str], list[int]]]
"""Draw the prompts and the secret seeds of the next pair."""

_STEADY = 0.05
_NORMAL = 0.12


@dataclass(frozen=True)
class Race:
    """A finished race: the timings, and the images of every pair, baseline and candidate, to be compared."""

    latency: Latency
    images: tuple[tuple[Images, Images], ...]


def warm_up(call: Call, draw: Draw, *, fewest: int = 3, most: int = 8) -> tuple[float, ...]:
    """Call until the last three times lie within 5 % of each other; return all times in seconds."""
    times: list[float] = []
    while len(times) < most and not (len(times) >= max(fewest, 1) and _steady(times, fewest)):
        times.append(call(*draw())[0])
    return tuple(times)


def race(
    baseline: Call,
    candidate: Call,
    draw: Draw,
    *,
    rng: np.random.Generator,
    pairs: tuple[int, int] = (5, 30),
    half_width: float = 0.02,
    threshold: float | None = None,
    usual_s: float | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Race:
    """Time pairs until the ratio is known well enough.

    Args:
        rng: decides who goes first in a pair, and draws the bootstrap.
        pairs: the fewest and the most pairs.
        half_width: stop once half the 95 % interval of the log-ratio is below it.
        threshold: stop once the interval excludes this ratio.
        usual_s: the baseline's median over the run so far, to tell a fast or slow state of the machine.
    """
    times: tuple[list[float], list[float]] = ([], [])
    images = []
    stopped = None
    while stopped is None:
        prompts, seeds = draw()
        shown: dict[int, Images] = {}
        for who in rng.permutation(2):
            seconds, shown[int(who)] = (baseline, candidate)[who](prompts, seeds)
            times[who].append(seconds)
        images.append((shown[0], shown[1]))
        interval = paired_ratio(*times, rng=rng)
        stopped = stop_reason(interval, pairs=pairs, half_width=half_width, threshold=threshold)
        progress(interval.pairs)
    drift = median(times[0]) / usual_s if usual_s else 1.0
    latency = Latency(
        ratio=interval.ratio,
        lo=interval.lo,
        hi=interval.hi,
        pairs=interval.pairs,
        baseline_s=tuple(times[0]),
        candidate_s=tuple(times[1]),
        state="slow" if drift > 1 + _NORMAL else "fast" if drift < 1 - _NORMAL else "normal",
        drift=drift,
        load_average=os.getloadavg()[0],
        stopped=stopped,
    )
    return Race(latency, tuple(images))


def _steady(times: list[float], fewest: int) -> bool:
    last = times[-min(3, max(fewest, 1)) :]
    return max(last) <= (1 + _STEADY) * min(last)
