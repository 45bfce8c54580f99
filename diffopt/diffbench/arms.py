"""The arms that search: all over the same programs, told the same, each with a budget of measured candidates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from diffopt.bench.outcome import Measured
from diffopt.diffbench.mechanical import MechanicalPlanner
from diffopt.diffbench.problem import BOUND, FASTEST, LEVEL, BaselineProblem
from diffopt.llm.best_of_n import BestOfN
from diffopt.llm.diffagent import POPULATION, DiffAgent
from diffopt.llm.feedback import Trial as Seen
from diffopt.llm.sequential import Sequential
from diffopt.llm.strategy import Planning, Strategy
from diffopt.passes.pipeline import Trace
from diffopt.search.engine import Settings
from diffopt.search.records import Trial
from diffopt.search.space import Legal
from diffopt.search.study.methods import random_legal, searched
from diffopt.search.study.problem import Searchable, candidate
from diffopt.search.study.rivals import nsga2, tpe

PlannerFor = Callable[[BaselineProblem, int], Planning]
"""Makes who plans for a baseline with a seed: a language model, or what stands in for one."""

SETTINGS = Settings(levels=(LEVEL,))
"""The engine as it is, with the task's bound as the level that a report shows."""


@dataclass(frozen=True)
class Arm:
    """Who searches.

    Args:
        search: measures a number of programs; the first of more are those of fewer.
        text: who that is, for the page.
        whole: searches the whole catalogue, engines included, which goes beyond what the tasks' words offer.
        plans: asks a planner, so a language model if there is one.
    """

    name: str
    search: Callable[[BaselineProblem, int, int, PlannerFor], object]
    text: str
    whole: bool = False
    plans: bool = False


class Measuring:
    """Measures plans within a budget: a `Measure` of `diffopt.llm`."""

    def __init__(self, problem: Searchable, count: int) -> None:
        self._problem, self._count = problem, count
        self.trials: dict[str, Trial] = {}

    @property
    def spent(self) -> bool:
        """See `Measure`."""
        return len(self.trials) >= self._count

    def __call__(self, trace: Trace, origin: str) -> Trial | None:
        """See `Measure`; a program outside the space costs nothing and gives nothing."""
        legal = self._problem.space.check(trace.passes)
        start = self._problem.space.check(())
        if not isinstance(legal, Legal) or legal == start:
            return None
        if legal.key not in self.trials:
            if self.spent:
                return None
            asked = candidate(self._problem.space, trace.passes, len(self.trials) + 1)
            self.trials[legal.key] = Trial(asked, self._problem.evaluate(asked))
        return self.trials[legal.key]


def _ours(problem: BaselineProblem, count: int, seed: int, plan: PlannerFor) -> object:
    return searched(problem, count, seed, problem.seeds(), SETTINGS, BOUND)


def _rules(problem: BaselineProblem, count: int, seed: int, plan: PlannerFor) -> object:
    measuring = Measuring(problem, count)
    for proposer in problem.seeds():
        for trace in proposer.propose(problem.module, (), count):
            measuring(trace, "rules")
    return measuring.trials


def _by(make: Callable[[Planning, int, int], Strategy]) -> Callable[[BaselineProblem, int, int, PlannerFor], object]:
    def search(problem: BaselineProblem, count: int, seed: int, plan: PlannerFor) -> object:
        return make(plan(problem, seed), count, seed).search(problem.module, Measuring(problem, count))

    return search


def _keeps(trial: Seen) -> bool:
    return isinstance(trial.outcome, Measured) and trial.outcome.tier != "changed"


def _diffagent(planner: Planning, count: int, seed: int) -> Strategy:
    return DiffAgent(planner, keeps=_keeps, seed=seed, rounds=-(-count // POPULATION) + 1)


ARMS: Mapping[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm("ours", _ours, "diffopt's search, begun with its rules"),
        Arm("rules", _rules, "diffopt's rules in their order, and no search"),
        Arm("random", lambda p, n, s, plan: random_legal(p, n, s), "random legal programs"),
        Arm("tpe", lambda p, n, s, plan: tpe(p, n, s, FASTEST), "optuna's TPE, least time within the bound"),
        Arm("nsga2", lambda p, n, s, plan: nsga2(p, n, s, FASTEST), "pymoo's NSGA-II, least time within the bound"),
        Arm("diffagent", _by(_diffagent), "the paper's scheme", plans=True),
        Arm("best-of-n", _by(lambda p, n, s: BestOfN(p)), "independent plans", plans=True),
        Arm("sequential", _by(lambda p, n, s: Sequential(p)), "one plan after another", plans=True),
        Arm("ours-whole", _ours, "diffopt's search over its whole catalogue, engines included", whole=True),
    )
}

TARGET_ARM, TARGET_SEED, TARGET_COUNT = "tpe", 1000, 50
"""The search that sets the targets: none of ours, and with a seed that no arm is tested with."""

mechanical: PlannerFor = partial(MechanicalPlanner)
"""Who plans where there is no language model."""
