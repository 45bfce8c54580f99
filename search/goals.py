"""What a user wants, as numbers: constraints, objectives to minimise, and the winner at each level of fidelity."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from diffopt.ir.errors import DiffoptError

if TYPE_CHECKING:
    from diffopt.bench.outcome import Measured
    from diffopt.search.records import Trial

TIERS = ("exact", "near", "traded")
"""Tiers of measured fidelity, strictest first; any other word ranks below them."""

MINIMIZED = {"latency": 0, "memory": 2}
"""What the winner may have least of, and its place among the `objectives`."""

PSNR_CEILING_DB = 80.0
"""Above this, two images are the same to any user, and the search stops paying for more."""

MEMORY_GRAIN = 0.05
"""Peak memory is told apart in steps of 5 %: less is noise of the allocator, and would fill the front with it."""


@dataclass(frozen=True)
class Constraints:
    """What a program must keep to be of use, where `None` asks nothing, and what the best has least of.

    Args:
        max_latency_s: median seconds of a call.
        min_psnr: median paired PSNR in dB.
        tier: the weakest measured tier that will do, of `TIERS`.
        max_memory_bytes: peak memory.
        keep_steps: leave the number of denoising steps alone; checked before measuring.
        minimize: what decides between those that keep all of it, of `MINIMIZED`.

    Raises:
        DiffoptError: a bound that nothing can meet, or an unknown word.
    """

    max_latency_s: float | None = None
    min_psnr: float | None = None
    tier: str | None = None
    max_memory_bytes: int | None = None
    keep_steps: bool = False
    minimize: str = "latency"

    def __post_init__(self) -> None:
        if self.tier is not None and self.tier not in TIERS:
            raise DiffoptError(f"unknown tier {self.tier!r}", hint=f"one of {', '.join(TIERS)}")
        if self.minimize not in MINIMIZED:
            raise DiffoptError(f"nothing minimizes {self.minimize!r}", hint=f"one of {', '.join(MINIMIZED)}")
        for name in ("max_latency_s", "min_psnr", "max_memory_bytes"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise DiffoptError(f"{name} must be a positive number, not {value}")


@dataclass(frozen=True)
class Level:
    """A named demand for which the report shows the best program."""

    name: str
    constraints: Constraints


LEVELS = (
    Level("steps kept", Constraints(min_psnr=45.0, keep_steps=True)),
    Level(">=45 dB", Constraints(min_psnr=45.0)),
    Level("near", Constraints(tier="near")),
    Level("traded", Constraints(tier="traded")),
)


def measured(trial: Trial) -> Measured | None:
    """Return the outcome of a trial that was measured, `None` of one that failed."""
    from diffopt.bench.outcome import Measured

    return trial.outcome if isinstance(trial.outcome, Measured) else None


def seconds_of(outcome: Measured) -> float:
    """Return about how many seconds its measurement took: made, loaded, raced in pairs, and its images made."""
    latency = outcome.latency
    baseline, candidate = (median(times) for times in (latency.baseline_s, latency.candidate_s))
    raced = latency.pairs * (baseline + candidate) + outcome.fidelity.images * candidate
    return raced + outcome.build_s + outcome.load_s + outcome.first_call_s


def objectives(outcome: Measured) -> NDArray[np.float64]:
    """Return what the search minimises: log latency ratio to the baseline, -PSNR in dB, log memory ratio."""
    memory = outcome.memory.peak_bytes / max(outcome.memory.baseline_peak_bytes, 1)
    return np.array(
        [
            -math.log(outcome.latency.ratio),
            -_psnr(outcome),
            round(math.log(max(memory, 1e-6)) / MEMORY_GRAIN) * MEMORY_GRAIN,
        ]
    )


def violation(constraints: Constraints, outcome: Measured, facts: Mapping[str, float]) -> float:
    """Return by how much an outcome misses the constraints, as a sum of relative excesses; 0 where it meets them."""
    return sum(excess for excess, _ in _misses(constraints, outcome, facts))


def shortfalls(constraints: Constraints, outcome: Measured, facts: Mapping[str, float]) -> tuple[str, ...]:
    """Say which constraints an outcome misses, and by what; empty where it meets them."""
    return tuple(text for _, text in _misses(constraints, outcome, facts))


def _misses(constraints: Constraints, outcome: Measured, facts: Mapping[str, float]) -> Iterator[tuple[float, str]]:
    """Yield each constraint that is missed: the relative excess, and a sentence."""
    latency, memory = median(outcome.latency.candidate_s), outcome.memory.peak_bytes
    most_s, most_bytes, least = constraints.max_latency_s, constraints.max_memory_bytes, constraints.min_psnr
    if most_s is not None and latency > most_s:
        yield latency / most_s - 1, f"{1e3 * latency:.0f} ms a call, asked for {1e3 * most_s:g}"
    if least is not None and _psnr(outcome) < least:
        yield 1 - _psnr(outcome) / least, f"{_psnr(outcome):.1f} dB, asked for {least:g}"
    if constraints.tier is not None and (weaker := _tier_rank(outcome.tier) - _tier_rank(constraints.tier)) > 0:
        yield weaker, f"tier {outcome.tier}, asked for {constraints.tier}"
    if most_bytes is not None and memory > most_bytes:
        yield memory / most_bytes - 1, f"{memory / 1e9:.2f} GB, asked for {most_bytes / 1e9:g}"
    if constraints.keep_steps and not facts.get("steps_kept", 0.0):
        yield 1.0, "other steps than the pipeline's own"


def winners(
    trials: Sequence[Trial], levels: Sequence[Level] = LEVELS, constraints: Constraints | None = None
) -> dict[str, Trial]:
    """Return the best measured trial of each level that has one, by `merit`; `constraints` of the user hold at each."""
    demands = constraints or Constraints()
    found: dict[str, Trial] = {}
    for level in levels:
        best = (-math.inf, -math.inf)
        for trial in trials:
            outcome = measured(trial)
            if outcome is None or merit(outcome, demands) <= best:
                continue
            facts = trial.candidate.facts
            if violation(level.constraints, outcome, facts) == 0 and violation(demands, outcome, facts) == 0:
                found[level.name], best = trial, merit(outcome, demands)
    return found


def merit(outcome: Measured, constraints: Constraints) -> tuple[float, float]:
    """Return how good an outcome is by what is minimized; the larger, the better.

    Fast means the lower end of the 95 % interval of the latency ratio: a lucky, noisy program does not win over a sure
    one. Of programs that are equally lean, in steps of `MEMORY_GRAIN`, the fast one wins.
    """
    if constraints.minimize == "memory":
        return -float(objectives(outcome)[MINIMIZED["memory"]]), outcome.latency.lo
    return outcome.latency.lo, 0.0


def _psnr(outcome: Measured) -> float:
    psnr = outcome.fidelity.psnr_median
    return 0.0 if math.isnan(psnr) else min(psnr, PSNR_CEILING_DB)


def _tier_rank(tier: str) -> int:
    return TIERS.index(tier) if tier in TIERS else len(TIERS)
