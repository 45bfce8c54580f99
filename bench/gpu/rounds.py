"""Interleaved timing: in each round every arm makes one image, in random order, with a seed of its own."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from diffopt.bench.statistics import median, paired_ratio

Rounds = list[dict[str, float]]


def measure(
    arms: Mapping[str, Callable[[int], None]],
    rounds: Rounds,
    *,
    rng: np.random.Generator,
    most: int,
    until: float,
    keep: Callable[[], None],
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Add rounds until there are `most` of them or the time is over.

    Args:
        arms: what makes one image from a seed and returns when it is there.
        rounds: seconds by arm, one entry a round; those there already count.
        until: by the clock; a round that would end later is not begun.
        keep: called after each round.
    """
    names = [*arms]
    longest = 0.0
    while len(rounds) < most and clock() + longest < until:
        begun = clock()
        taken: dict[str, float] = {}
        for name in rng.permutation(names):
            start = time.perf_counter()
            arms[str(name)](int(rng.integers(1 << 31)))
            taken[str(name)] = time.perf_counter() - start
        longest = max(longest, clock() - begun)
        rounds.append(taken)
        keep()


def ratios(rounds: Rounds, bases: Sequence[str], *, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Return medians, and for each pair of a base and another arm the ratio with its interval."""
    names = list(dict.fromkeys(itertools.chain.from_iterable(rounds)))
    found: dict[str, dict[str, Any]] = {
        name: {"median_s": median([entry[name] for entry in rounds if name in entry])} for name in names
    }
    for base, name in itertools.product(bases, names):
        pairs = [(entry[base], entry[name]) for entry in rounds if base in entry and name in entry]
        if base == name or not pairs:
            continue
        interval = paired_ratio(*zip(*pairs, strict=True), rng=np.random.default_rng(seed))
        found[name][f"over_{base}"] = {
            "ratio": interval.ratio, "lo": interval.lo, "hi": interval.hi, "pairs": interval.pairs,
        }  # fmt: skip
    return found
