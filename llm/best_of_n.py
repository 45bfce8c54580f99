"""The first control: independent plans from the model, none of which hears of another's figures."""

from __future__ import annotations

from xdsl.dialects.builtin import ModuleOp

from diffopt.llm.feedback import Trial
from diffopt.llm.strategy import Measure, Planning

BATCH = 7
"""Plans a question; the paper's population, so that a question costs about the same."""


class BestOfN:
    """Asks the same question again and again; measured programs are kept from the model, but not measured twice."""

    name = "best-of-n"

    def __init__(self, planner: Planning, *, most_questions: int = 24) -> None:
        self._planner, self._most = planner, most_questions

    def search(self, module: ModuleOp, measure: Measure) -> str:
        """See `Strategy`."""
        known: list[Trial] = []
        for _ in range(self._most):
            # What was refused is kept from the next question too: each is the first.
            self._planner.rejected.clear()
            for trace in self._planner.propose(module, (), BATCH, known=known):
                trial = measure(trace, self.name)
                if trial is not None:
                    known.append(trial)
                elif measure.spent:
                    return "the budget of measurements is spent"
            if self._planner.problems and self._planner.problems[-1].status in ("budget", "rejected", "unavailable"):
                return f"the model gives no more plans: {self._planner.problems[-1].message}"
        return f"{self._most} questions were asked"
