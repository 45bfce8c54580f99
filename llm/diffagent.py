"""The paper's agent as a way of searching: plans, measurements, selection by fitness, refinement (PAPER.md, section 2).

What the paper leaves open and is decided here: fitness is the logarithm of the measured speed-up, a quarter of it where
the images are weaker than asked for, and 0 for what failed or is no faster; parents are drawn from all that was
measured, without replacement; the agent hands over all trials, and the judge on held-out prompts picks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from xdsl.dialects.builtin import ModuleOp

from diffopt.bench.outcome import Measured
from diffopt.llm.feedback import Trial
from diffopt.llm.strategy import Measure, Planning
from diffopt.passes.pipeline import Trace

POPULATION, PARENTS, ROUNDS = 7, 4, 5
"""P, M and T of the paper; of each round after the first, P - M plans are new ones."""


class DiffAgent:
    """A population of plans over a few rounds.

    Args:
        keeps: whether a trial's images and bounds are what the user asked for.
        satisfied: whether a trial ends the search: the paper's agent stops at the user's target, where there is one.
        seed: of the selection.
    """

    name = "diffagent"

    def __init__(
        self,
        planner: Planning,
        *,
        keeps: Callable[[Trial], bool],
        satisfied: Callable[[Trial], bool] = lambda trial: False,
        seed: int = 0,
        population: int = POPULATION,
        parents: int = PARENTS,
        rounds: int = ROUNDS,
    ) -> None:
        self._planner, self._keeps, self._satisfied = planner, keeps, satisfied
        self._seed, self._population, self._parents, self._rounds = seed, population, parents, rounds

    def search(self, module: ModuleOp, measure: Measure) -> str:
        """See `Strategy`."""
        known: list[Trial] = []
        plans: list[Trace] = self._planner.propose(module, (), self._population)
        for number in range(self._rounds):
            for trace in plans:
                trial = measure(trace, f"{self.name}:{number + 1}")
                if trial is not None:
                    known.append(trial)
                elif measure.spent:
                    return "the budget of measurements is spent"
                if trial is not None and self._satisfied(trial):
                    return f"the target is met in round {number + 1}"
            if number + 1 < self._rounds:
                plans = self._next(module, known, number)
        return f"{self._rounds} rounds are done"

    def fitness(self, trial: Trial) -> float:
        """Return what a trial is worth as a parent."""
        if not isinstance(trial.outcome, Measured):
            return 0.0
        gain = max(0.0, math.log(max(trial.outcome.latency.ratio, 1e-9)))
        return gain if self._keeps(trial) else gain / 4

    def select(self, known: Sequence[Trial], number: int) -> list[Trial]:
        """Draw the parents of a round, each with a chance in proportion to its fitness."""
        weights = np.array([self.fitness(trial) for trial in known])
        able = int(np.count_nonzero(weights))
        if not able:
            return []
        rng = np.random.default_rng([self._seed, number])
        drawn = rng.choice(len(known), size=min(self._parents, able), replace=False, p=weights / weights.sum())
        return [known[int(index)] for index in drawn]

    def _next(self, module: ModuleOp, known: Sequence[Trial], number: int) -> list[Trace]:
        parents = self.select(known, number)
        plans = self._planner.propose(module, parents, len(parents), task="refine", known=known) if parents else []
        return [*plans, *self._planner.propose(module, known, self._population - len(parents), task="fresh")]
