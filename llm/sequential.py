"""The second control: one plan at a time, each in sight of all figures so far."""

from __future__ import annotations

from xdsl.dialects.builtin import ModuleOp

from diffopt.llm.feedback import Trial
from diffopt.llm.strategy import Measure, Planning


class Sequential:
    """Asks for the best next measurement until there is no budget, or the model has nothing new to say."""

    name = "sequential"

    def __init__(self, planner: Planning, *, patience: int = 3) -> None:
        """Prepare it.

        Args:
            patience: questions without a usable plan, one after another, before it stops.
        """
        self._planner, self._patience = planner, patience

    def search(self, module: ModuleOp, measure: Measure) -> str:
        """See `Strategy`."""
        known: list[Trial] = []
        without = 0
        while without < self._patience:
            plans = self._planner.propose(module, known, 1, task="next")
            without = 0 if plans else without + 1
            for trace in plans:
                trial = measure(trace, self.name)
                if trial is not None:
                    known.append(trial)
                elif measure.spent:
                    return "the budget of measurements is spent"
        return "the model has no more plans"
