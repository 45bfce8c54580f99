"""What stands in for a language model where there is none: plans from the rules, random ones, and changes of measured ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from diffopt.bench.outcome import Measured
from diffopt.passes.pipeline import Trace
from diffopt.search.repair import repair
from diffopt.search.space import Legal
from diffopt.search.study.methods import ATTEMPTS
from diffopt.search.variation import fresh, vary

if TYPE_CHECKING:
    from xdsl.dialects.builtin import ModuleOp

    from diffopt.llm.feedback import Trial
    from diffopt.search.space import Steps
    from diffopt.search.study.problem import Searchable


class MechanicalPlanner:
    """A `Planning` without a language model: it shows what the paper's scheme does by itself, not what a model knows.

    Asked for plans, it names the rules' programs and then random legal ones; to refine, it changes each parent by one of
    diffopt's operators; for the next, it changes the fastest within the bound.
    """

    def __init__(self, problem: Searchable, seed: int) -> None:
        self.rejected: list[object] = []
        self.problems: list[object] = []
        self._problem, self._rng = problem, np.random.default_rng([seed, 9])

    def propose(
        self,
        module: ModuleOp,
        history: Sequence[Trial],
        count: int,
        *,
        task: str = "",
        known: Sequence[Trial] | None = None,
    ) -> list[Trace]:
        """See `Planning`."""
        space = self._problem.space
        start = space.check(())
        seen = {trial.candidate.key for trial in (history if known is None else known)}
        seen |= {start.key} if isinstance(start, Legal) else set()
        found: list[Trace] = []

        def take(steps: Steps | None) -> bool:
            legal = space.check(steps) if steps else None
            if steps is None or not isinstance(legal, Legal) or legal.key in seen:
                return False
            seen.add(legal.key)
            found.append(Trace(steps))
            return True

        parents = self._parents(history, task)
        if task == "refine":
            for parent in parents[:count]:
                any(take(self._changed(parent)) for _ in range(ATTEMPTS))
            return found
        for proposer in self._problem.seeds():
            for trace in proposer.propose(module, (), ATTEMPTS):
                if len(found) < count:
                    take(trace.passes)
        for _ in range(ATTEMPTS * count):
            if len(found) >= count:
                break
            take(self._changed(parents[0]) if parents else self._mended(fresh(space, self._rng)))
        return found

    def _parents(self, history: Sequence[Trial], task: str) -> list[Steps]:
        """Return what is changed: the parents to refine, in their order; for the next, the fastest within the bound."""
        measured = [t for t in history if isinstance(t.outcome, Measured)]
        if task == "next":
            kept = [t for t in measured if isinstance(t.outcome, Measured) and t.outcome.tier != "changed"] or measured
            measured = sorted(kept, key=lambda t: -t.outcome.latency.ratio if isinstance(t.outcome, Measured) else 0.0)
        elif task != "refine":
            return []
        return [self._problem.space.parse(trial.candidate.trace).passes for trial in measured]

    def _changed(self, steps: Steps) -> Steps | None:
        return self._mended(vary([steps], self._problem.space, self._rng)[0])

    def _mended(self, steps: Steps | None) -> Steps | None:
        return repair(steps, self._problem.space, self._rng) if steps else None
