"""Whose proposals are taken on their word: a proposer that has shown nothing twice running waits for the surrogate."""

from __future__ import annotations

from collections.abc import Sequence

from diffopt.search.goals import measured
from diffopt.search.records import Trial

PATIENCE = 2
"""Programs in a row without a gain, after which a proposer's others are measured only where the surrogate wants them."""


def disappointing(trials: Sequence[Trial]) -> frozenset[str]:
    """Return the origins whose last programs all failed, or were neither faster nor smaller than the baseline."""
    last: dict[str, int] = {}
    for trial in trials:
        origin = trial.candidate.origin
        last[origin] = 0 if _gains(trial) else last.get(origin, 0) + 1
    return frozenset(origin for origin, count in last.items() if count >= PATIENCE)


def _gains(trial: Trial) -> bool:
    outcome = measured(trial)
    if outcome is None:
        return False
    return outcome.latency.lo > 1 or outcome.memory.peak_bytes < 0.95 * outcome.memory.baseline_peak_bytes
