"""Race a candidate against the baseline: interleaved pairs in random order, the same fresh prompt and seed for both."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from diffopt.bench.energy import Meter
from diffopt.bench.outcome import Latency
from diffopt.bench.resident import Images
from diffopt.bench.statistics import median, paired_ratio, states, stop_reason

Call = Callable[[list[str], list[int]], tuple[float, Images]]
"""Run a pipeline on prompts and seeds; return the seconds it took, by the parent's clock, and the images."""

Draw = Callable[[], tuple[list[str], list[int]]]
"""Draw the prompts and the secret seeds of the next pair."""

_STEADY = 0.05
_NORMAL = 0.12


@dataclass(frozen=True)
class Timing:
    """When a race stops, and when it rests.

    Args:
        pairs: the fewest and the most pairs.
        threshold: stop once the interval excludes this ratio.
        rest_s: rest so long after every quarter of the most pairs: these machines change their state for a while, and
            pairs close together would all fall into one.
        half_width: stop once half the 95 % interval of the log-ratio is below it.
    """

    pairs: tuple[int, int] = (5, 30)
    threshold: float | None = None
    rest_s: float = 0.0
    half_width: float = 0.02


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
    timing: Timing = Timing(),
    usual_s: float | None = None,
    energy: Meter | None = None,
    sleep: Callable[[float], None] = time.sleep,
    progress: Callable[[int], None] = lambda done: None,
) -> Race:
    """Time pairs until the ratio is known well enough.

    Args:
        rng: decides who goes first in a pair, and draws the bootstrap.
        usual_s: the baseline's median over the run so far, to tell a fast or slow state of the machine.
        energy: counts joules of calls; None not to.
    """
    times: tuple[list[float], list[float]] = ([], [])
    joules: tuple[list[float], list[float]] = ([], [])
    images = []
    stopped = None
    while stopped is None:
        prompts, seeds = draw()
        shown: dict[int, Images] = {}
        for who in rng.permutation(2):
            before = energy.now() if energy else None
            seconds, shown[int(who)] = (baseline, candidate)[who](prompts, seeds)
            times[who].append(seconds)
            used = energy.since(before) if energy else None
            joules[int(who)].extend([] if used is None else [used])
        images.append((shown[0], shown[1]))
        interval = paired_ratio(*times, rng=rng, stopping=timing.pairs[0] < timing.pairs[1])
        stopped = stop_reason(interval, pairs=timing.pairs, half_width=timing.half_width, threshold=timing.threshold)
        progress(interval.pairs)
        if timing.rest_s and stopped is None and interval.pairs % max(1, timing.pairs[1] // 4) == 0:
            sleep(timing.rest_s)
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
        states=states(*times),
        baseline_j=median(joules[0]) if joules[0] else None,
        candidate_j=median(joules[1]) if joules[1] else None,
        stopped=stopped,
    )
    return Race(latency, tuple(images))


def _steady(times: list[float], fewest: int) -> bool:
    last = times[-min(3, max(fewest, 1)) :]
    return max(last) <= (1 + _STEADY) * min(last)
