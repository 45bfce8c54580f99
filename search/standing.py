"""Whose proposals are taken on their word, and when they have to earn it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from statistics import fmean

import numpy as np

from diffopt.search.goals import measured
from diffopt.search.history import History
from diffopt.search.records import Candidate, Trial
from diffopt.search.selection import hypervolume

PATIENCE = 2
"""Programs in a row without a gain, after which a proposer's others are measured only where the surrogate wants them."""


def disappointing(trials: Sequence[Trial]) -> frozenset[str]:
    """Return the origins whose last programs all failed, or were neither faster nor smaller than the baseline."""
    last: dict[str, int] = {}
    for trial in trials:
        origin = trial.candidate.origin
        last[origin] = 0 if _gains(trial) else last.get(origin, 0) + 1
    return frozenset(origin for origin, count in last.items() if count >= PATIENCE)


def unearned(outside: Collection[str], asked: Sequence[Candidate], history: History) -> frozenset[str]:
    """Return the origins from outside whose next program is not measured on their word.

    The first one is: somebody has to begin. Then it is the turn of others, so that an origin never has more than one
    program on credit. Once both have something to show, an origin is heard as long as its programs are worth as much in
    the mean as those of others: a bad planner costs one measurement, whatever it says of itself.

    Args:
        outside: origins that nobody vouches for.
        asked: all candidates so far, those being measured included.
        history: of the trials.
    """
    worths = _worths(history)
    found = set()
    for origin in outside:
        mine = [c.id for c in asked if c.origin == origin]
        others = [c.id for c in asked if c.origin != origin]
        shown, compared = ([worths[i] for i in ids if i in worths] for ids in (mine, others))
        if not mine:
            continue
        if shown and compared:
            behind = fmean(shown) < fmean(compared) or (not any(shown) and len(mine) > len(others))
        else:
            behind = len(mine) > len(others)
        if behind:
            found.add(origin)
    return frozenset(found)


def _worths(history: History) -> dict[int, float]:
    """Return the hypervolume of each told program alone, by candidate; nothing for failures and what is not allowed."""
    worths = dict.fromkeys(history.failed, 0.0)
    for trial, point, violated in zip(history.trials, history.points, history.violations, strict=True):
        worths[trial.candidate.id] = hypervolume(np.array([point]), history.reference) if violated == 0 else 0.0
    return worths


def _gains(trial: Trial) -> bool:
    outcome = measured(trial)
    if outcome is None:
        return False
    return outcome.latency.lo > 1 or outcome.memory.peak_bytes < 0.95 * outcome.memory.baseline_peak_bytes
