"""What measuring a program is expected to be worth: a larger front, and faster winners at the levels a report shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diffopt.search.expected import expected_gains, normal_cdf, reach
from diffopt.search.goals import LEVELS, MINIMIZED, Constraints, Level, measured, violation
from diffopt.search.history import History
from diffopt.search.selection import Points

UNSURE_DB = 3.0
"""How far beyond the nearest trial the bound of a tier is guessed to lie, where trials lie on one side of it only."""


@dataclass(frozen=True)
class Worth:
    """Expected worth of some programs; the larger, the better.

    Args:
        sure: expected relative gain in hypervolume plus mean expected gain in log speed-up, or in what else is minimized,
            over the levels.
        excess: how far outside the constraints a program is predicted to lie.
    """

    sure: Points
    excess: Points


def worth(
    history: History,
    constraints: Constraints,
    mean: Points,
    deviation: Points,
    steps_kept: Sequence[bool],
    levels: Sequence[Level] = LEVELS,
    pending: Points | None = None,
) -> Worth:
    """Weigh programs by the predictions for them: mean and deviation of the objectives (n × 3 each).

    Args:
        pending: what is predicted of programs that are being measured; taken for granted, so that several workers do
            not go after the same gain.
    """
    reference = history.reference
    front = history.front if pending is None else np.vstack([history.front, pending])
    sure = expected_gains(front, reference, mean, deviation) / (history.volume or 1.0)
    least = MINIMIZED[constraints.minimize]
    for level in levels:
        demand = _demand(level, history, constraints)
        if demand is not None:
            faster = reach(np.array([-demand.best]), mean[:, least], deviation[:, least])[0]
            close = normal_cdf((-mean[:, 1] - demand.psnr) / np.maximum(deviation[:, 1], 1e-12))
            allowed = np.array(steps_kept) | (not demand.keep_steps)
            sure += allowed * faster * close / len(levels)
    excess = (np.maximum(mean - reference, 0.0) / np.array([1.0, 10.0, 0.5])).sum(axis=1)
    return Worth(sure, excess)


@dataclass(frozen=True)
class _Demand:
    """A level as far as it can be predicted: a bound in dB, and the log speed-up, or the like, to beat."""

    psnr: float
    keep_steps: bool
    best: float


def _demand(level: Level, history: History, constraints: Constraints) -> _Demand | None:
    met: list[float] = []
    missed: list[float] = []
    best = 0.0
    for trial, point, violated in zip(history.trials, history.points, history.violations, strict=True):
        outcome = measured(trial)
        if outcome is None:
            continue
        tier_only = Constraints(min_psnr=level.constraints.min_psnr, tier=level.constraints.tier)
        holds = violation(tier_only, outcome, {}) == 0
        (met if holds else missed).append(-float(point[1]))
        kept = bool(trial.candidate.facts.get("steps_kept")) or not level.constraints.keep_steps
        if holds and kept and violated == 0:
            best = max(best, -float(point[MINIMIZED[constraints.minimize]]))
    if not met and not missed:
        return None
    if level.constraints.min_psnr is not None:
        bound = level.constraints.min_psnr
    elif not missed:
        bound = min(met) - UNSURE_DB
    elif not met:
        bound = max(missed) + UNSURE_DB
    else:
        bound = (min(met) + max(missed)) / 2
    return _Demand(max(bound, constraints.min_psnr or 0.0), level.constraints.keep_steps, best)
