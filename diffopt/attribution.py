"""What each of several changes bought: leave-one-out and Shapley effects with intervals, from measured subsets."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Subset = frozenset[int]

EXACT_UP_TO = 4
"""So many changes have few enough orders (24) and subsets (16) to take all."""


@dataclass(frozen=True)
class Effect:
    """What one change adds, with its 95 % interval: on average over orders (Shapley), and when it alone is left out."""

    shapley: float
    interval: tuple[float, float]
    left_out: float
    left_out_interval: tuple[float, float]


@dataclass(frozen=True)
class Attribution:
    """The effects of all changes; the Shapley effects sum to `total`, which is the whole against nothing."""

    effects: tuple[Effect, ...]
    total: float
    total_interval: tuple[float, float]


def orders(count: int, *, rng: np.random.Generator, sampled: int = 6) -> tuple[tuple[int, ...], ...]:
    """Return the orders that are averaged over: all, or some drawn with their reverses (antithetic pairs)."""
    if count <= EXACT_UP_TO:
        return tuple(itertools.permutations(range(count)))
    drawn = [tuple(int(index) for index in rng.permutation(count)) for _ in range(math.ceil(sampled / 2))]
    return tuple(dict.fromkeys(order for one in drawn for order in (one, one[::-1])))


def subsets(count: int, chosen: Sequence[Sequence[int]]) -> tuple[Subset, ...]:
    """Return the subsets to measure, smallest first: the beginnings of the orders, and all but one; not the empty one."""
    found = {frozenset(order[:length]) for order in chosen for length in range(1, count + 1)}
    found |= {frozenset(range(count)) - {index} for index in range(count)}
    return tuple(sorted(found - {frozenset()}, key=lambda subset: (len(subset), sorted(subset))))


def attribute(
    count: int, chosen: Sequence[Sequence[int]], values: Mapping[Subset, float], draws: Mapping[Subset, Floats]
) -> Attribution:
    """Return the effects.

    Args:
        chosen: the orders, see `orders`.
        values: the value of each measured subset; the empty one is worth 0.
        draws: bootstrap draws of each value, the same number for all; they give the intervals.
    """
    width = len(next(iter(draws.values())))
    nothing: Subset = frozenset()
    point = {nothing: 0.0, **values}
    drawn = {nothing: np.zeros(width), **draws}
    whole = frozenset(range(count))
    effects = []
    for index in range(count):
        before = [frozenset(order[: order.index(index)]) for order in map(list, chosen)]
        shapley = float(np.mean([point[part | {index}] - point[part] for part in before]))
        spread = np.mean([drawn[part | {index}] - drawn[part] for part in before], axis=0)
        rest = whole - {index}
        effects.append(
            Effect(shapley, _interval(spread), point[whole] - point[rest], _interval(drawn[whole] - drawn[rest]))
        )
    return Attribution(tuple(effects), point[whole], _interval(drawn[whole]))


def _interval(draws: Floats) -> tuple[float, float]:
    lo, hi = np.percentile(draws, [2.5, 97.5])
    return float(lo), float(hi)
