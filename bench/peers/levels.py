"""The levels of fidelity at which programs are compared, and who is the fastest at one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from diffopt.bench.evaluate import Measured, outcome_from_json
from diffopt.bench.tiers import TIERS

ROW = Mapping[str, Any]
"""A program's row of results: who, arm, kind, environment, kept (its steps), program (a hash), outcome."""


@dataclass(frozen=True)
class Level:
    """A level: its name, what it asks in words, and whether a measured program reaches it, given that it kept its steps.

    bars: how many times as fast as the best package, and as the best by hand, diffopt is to be; None where nothing was promised.
    """

    name: str
    asks: str
    reached: Callable[[Measured, bool], bool]
    bars: tuple[float | None, float | None] = (None, None)


def _within(tier: str) -> Callable[[Measured, bool], bool]:
    return lambda outcome, kept: TIERS.index(outcome.tier) <= TIERS.index(tier)


LEVELS = (
    Level(
        "steps kept", "median paired PSNR of at least 45 dB with the baseline's number of steps",
        lambda outcome, kept: kept and outcome.fidelity.psnr_median >= 45, (None, None),
    ),
    Level(
        ">=45 dB", "median paired PSNR of at least 45 dB",
        lambda outcome, kept: outcome.fidelity.psnr_median >= 45, (None, 1.0),
    ),
    Level("near", "tier `near` or stronger", _within("near"), (1.5, 1.0)),
    Level("traded", "tier `traded` or stronger", _within("traded"), (2.0, 1.0)),
)  # fmt: skip
"""Strictest first; thresholds of tiers are `bench.tiers.Thresholds`."""


def measured(row: ROW) -> Measured | None:
    """Return a row's outcome, None where the program failed."""
    outcome = outcome_from_json(row["outcome"])
    return outcome if isinstance(outcome, Measured) else None


def reaches(row: ROW, level: Level) -> bool:
    """Say whether a row's images keep a level."""
    outcome = measured(row)
    return outcome is not None and level.reached(outcome, bool(row["kept"]))


def fastest(rows: Iterable[ROW], level: Level, kind: str) -> list[ROW]:
    """Return the rows of a kind that reach a level, the surest fast one first: by the lower end of its interval."""
    found = [row for row in rows if row["kind"] == kind and reaches(row, level)]
    return sorted(found, key=lambda row: float(row["outcome"]["latency"]["lo"]), reverse=True)
