"""What a method is tried on: a space of programs, what measuring one gives, and the best that could be found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from xdsl.dialects.builtin import ModuleOp

from diffopt.bench.outcome import Measured, Outcome
from diffopt.passes.pipeline import Trace
from diffopt.search.goals import measured, objectives
from diffopt.search.records import Candidate, Proposer, Trial
from diffopt.search.selection import REFERENCE, Points, front, hypervolume
from diffopt.search.space import Refused, Space, Steps


class Searchable(Protocol):
    """What a method needs of a problem: a space whose programs can be measured again and again, and are always the same."""

    @property
    def space(self) -> Space:
        """The programs there are."""

    @property
    def module(self) -> ModuleOp:
        """The module they are made from."""

    @property
    def vocabulary(self) -> Mapping[str, Steps]:
        """All instances of each pass that a program may hold."""

    def evaluate(self, candidate: Candidate) -> Outcome:
        """Measure a program."""

    def seeds(self) -> Sequence[Proposer]:
        """Return who proposes the programs that somebody who knows the field would try first."""


class Problem(Searchable, Protocol):
    """One whose best is known, so that methods can be compared with it.

    `truth` is what no method sees: the objectives of a program without the noise of one measurement. Where none are
    known apart, it is what was measured.
    """

    def truth(self, trial: Trial) -> Points:
        """Return the three objectives of a measured program, minimised, without noise."""

    def reference(self) -> float:
        """Return the hypervolume of the best programs there are."""


@dataclass(frozen=True)
class Aim:
    """What a method that brings its own objectives is told of a program.

    Args:
        values: of a measured program, minimised.
        failed: of one that failed: worse than all that runs.
        excess: by how much a measured program breaks the bound, 0 or less where it keeps it; `None` where there is no bound.
    """

    values: Callable[[Measured], tuple[float, ...]]
    failed: tuple[float, ...]
    excess: Callable[[Measured], float] | None = None


FRONT_AIM = Aim(
    lambda outcome: tuple(map(float, objectives(outcome))), tuple(map(float, REFERENCE + np.array([5.0, 80.0, 3.0])))
)
"""The three objectives of a search."""


Method: TypeAlias = Callable[[Searchable, int, int], list[Trial]]
"""Measure a number of programs of a problem, with a seed; return them in the order of measuring."""


def reached(problem: Problem, trials: Sequence[Trial], budgets: Sequence[int], reference: float) -> list[float]:
    """Return what share of the reference the measured front holds after so many measurements, without its noise."""
    return [_volume(problem, trials[:budget]) / reference for budget in budgets]


def needed(problem: Problem, trials: Sequence[Trial], share: float, reference: float) -> int | None:
    """Return after how many measurements the front first holds that share of the reference, or `None`."""
    for count in range(1, len(trials) + 1):
        if _volume(problem, trials[:count]) >= share * reference:
            return count
    return None


def candidate(space: Space, steps: Steps, number: int) -> Candidate:
    """Return a legal program as a candidate.

    Raises:
        ValueError: the space refuses it.
    """
    legal = space.check(steps)
    if isinstance(legal, Refused):
        raise ValueError(f"not legal: {Trace(steps)}")  # noqa: TRY004 - a verdict, not a type
    return Candidate(number, str(Trace(steps)), legal.key, "study", legal.facts)


def _volume(problem: Problem, trials: Sequence[Trial]) -> float:
    """Return the true volume of those that stand on the measured front: a lucky measurement gains nothing."""
    kept = [(trial, outcome) for trial in trials if (outcome := measured(trial)) is not None]
    if not kept:
        return 0.0
    seen = np.array([objectives(outcome) for _, outcome in kept])
    best = front(seen, np.zeros(len(kept)))
    return hypervolume(np.array([problem.truth(kept[i][0]) for i in best]))
