"""When to stop: a budget of time or measurements, and the point where no gain is in sight."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from diffopt.ir.errors import DiffoptError
from diffopt.search.goals import LEVELS, MINIMIZED, Constraints, measured, objectives, violation
from diffopt.search.selection import front, hypervolume

if TYPE_CHECKING:
    from diffopt.search.records import Trial

_UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_TEXT = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(s|m|min|h)?", re.ASCII)


@dataclass(frozen=True)
class Budget:
    """How much a search may spend; `None` sets no limit.

    Args:
        seconds: wall time of this session.
        candidates: programs with an outcome in the whole run, those of earlier sessions included.
        early: stop before, where no gain is in sight; see `no_gain_in_sight`.
    """

    seconds: float | None = None
    candidates: int | None = None
    early: bool = True

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``40`` (candidates), ``90s``, ``10m`` or ``1h``.

        Raises:
            DiffoptError: the text is none of these, or asks for nothing.
        """
        match = _TEXT.fullmatch(text.strip().lower())
        if match is None:
            raise DiffoptError(
                f"not a budget: {text!r}", "--budget", "write a number of candidates (40) or a time (90s, 10m, 1h)"
            )
        number, unit = match.groups()
        if float(number) == 0:
            raise DiffoptError(f"{text!r} leaves nothing to search with", "--budget", "write 40, 90s, 10m or 1h")
        if unit is not None:
            return cls(seconds=float(number) * _UNITS[unit])
        if "." in number:
            raise DiffoptError(
                f"{text!r} is no number of candidates", "--budget", "write a whole number, or a time such as 90s"
            )
        return cls(candidates=int(number))

    def __str__(self) -> str:
        parts = [] if self.candidates is None else [f"{self.candidates} candidates"]
        if self.seconds is not None:
            parts.append(f"{self.seconds:g} s")
        return " or ".join(parts) or "unlimited"

    def spent(self, seconds: float, candidates: int) -> str | None:
        """Return why the budget is used up, or `None` while it is not."""
        if self.candidates is not None and candidates >= self.candidates:
            return f"{candidates} candidates measured"
        if self.seconds is not None and seconds >= self.seconds:
            return f"{self.seconds:g} s used"
        return None


def no_gain_in_sight(trials: Sequence[Trial], constraints: Constraints, *, window: int = 16) -> str | None:
    """Return why going on would not pay, or `None` where it may.

    The last `window` programs that the surrogate chose brought, all together, less than noise alone brings about (see
    `measured_noise`): as many again will hardly do better. What the surrogate expected of them is not asked: the best
    of many predictions is always too good (on the synthetic problem it expects 10 to 80 % and gets 1 to 5 %).
    """
    noise = measured_noise(trials, constraints)
    brought = realised(trials, constraints)
    chosen = [gain for trial, gain in zip(trials, brought, strict=True) if trial.candidate.predicted is not None]
    total = sum(chosen[-window:])
    if len(chosen) < window or noise is None or total >= noise:
        return None
    return f"the last {window} choices brought {total:.1%}, which is under the noise of {noise:.1%}"


def realised(trials: Sequence[Trial], constraints: Constraints) -> list[float]:
    """Return what each trial brought when it was told, in the units of `acquisition.Worth`; 0 for failures."""
    gains: list[float] = []
    points = np.empty((0, 3))
    volume, best = 0.0, dict.fromkeys((level.name for level in LEVELS), 0.0)
    for trial in trials:
        outcome = measured(trial)
        facts = trial.candidate.facts
        if outcome is None or violation(constraints, outcome, facts) > 0:
            gains.append(0.0)
            continue
        points = np.vstack([points, objectives(outcome)])
        larger, less = hypervolume(points), -float(points[-1, MINIMIZED[constraints.minimize]])
        gain = (larger - volume) / volume if volume > 0 else larger
        for level in LEVELS:
            if less > best[level.name] and violation(level.constraints, outcome, facts) == 0:
                gain += (less - best[level.name]) / len(LEVELS)
                best[level.name] = less
        volume = larger
        gains.append(float(gain))
    return gains


def measured_noise(trials: Sequence[Trial], constraints: Constraints) -> float | None:
    """Return what noise is worth, in the units of `acquisition.Worth`; `None` without a front.

    That is what the front would gain if each of its latencies were half its 95 % interval better, in log ratio.
    """
    outcomes = [(o, t.candidate.facts) for t in trials if (o := measured(t)) is not None]
    if not outcomes:
        return None
    points = np.array([objectives(o) for o, _ in outcomes])
    best = front(points, np.array([violation(constraints, o, facts) for o, facts in outcomes]))
    volume = hypervolume(points[best])
    if volume <= 0:
        return None
    widths = np.array([outcomes[i][0].latency.half_width for i in best])
    lucky = points[best] - widths[:, None] * np.array([1.0, 0.0, 0.0])
    return hypervolume(lucky) / volume - 1 + float(np.median(widths))
