"""What others offer, on the same programs: NSGA-II of pymoo, and the tree-structured Parzen estimator of optuna."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from diffopt.passes.base import options
from diffopt.search.goals import measured
from diffopt.search.records import Trial
from diffopt.search.space import Steps
from diffopt.search.study.methods import mended
from diffopt.search.study.problem import FRONT_AIM, Aim, Method, Searchable, candidate
from diffopt.search.variation import crossover, fresh, vary

_EXCESS = "excess"

POPULATION = 12
"""Of NSGA-II: the best of 8 to 24 for budgets below 120."""

BROKEN = 10.0
"""By how much a program that failed is said to break a bound: more than any that runs."""


class _Measurer:
    """Measures each program once; one that a method asks for again costs nothing."""

    def __init__(self, problem: Searchable, count: int, aim: Aim) -> None:
        self.problem, self.count, self.aim = problem, count, aim
        self.trials: dict[str, Trial] = {}

    @property
    def done(self) -> bool:
        return len(self.trials) >= self.count

    def __call__(self, steps: Steps) -> tuple[tuple[float, ...], float]:
        """Return what the aim says of a program: values to minimise, and by how much it breaks the bound."""
        asked = candidate(self.problem.space, steps, len(self.trials) + 1)
        if asked.key not in self.trials and not self.done:
            self.trials[asked.key] = Trial(asked, self.problem.evaluate(asked))
        trial = self.trials.get(asked.key)
        outcome = None if trial is None else measured(trial)
        if outcome is None:
            return self.aim.failed, BROKEN
        return self.aim.values(outcome), 0.0 if self.aim.excess is None else self.aim.excess(outcome)


def nsga2(problem: Searchable, count: int, seed: int, aim: Aim = FRONT_AIM) -> list[Trial]:
    """Run pymoo's NSGA-II over traces, with diffopt's own operators and repair."""
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.crossover import Crossover
    from pymoo.core.duplicate import ElementwiseDuplicateElimination
    from pymoo.core.mutation import Mutation
    from pymoo.core.problem import ElementwiseProblem
    from pymoo.core.sampling import Sampling

    rng, space, measure = np.random.default_rng(seed), problem.space, _Measurer(problem, count, aim)

    def new() -> Steps:
        while True:
            steps = mended(fresh(space, rng), space, rng)
            if steps is not None:
                return steps

    class Traces(ElementwiseProblem):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(n_var=1, n_obj=len(aim.failed), n_ieq_constr=int(aim.excess is not None))

        def _evaluate(self, x: Any, out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
            values, excess = measure(x[0])
            out["F"] = list(values)
            if aim.excess is not None:
                out["G"] = [excess]

    class Fresh(Sampling):  # type: ignore[misc]
        def _do(self, problem: Any, n_samples: int, **kwargs: Any) -> Any:
            return _column([new() for _ in range(n_samples)])

    class Merge(Crossover):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(2, 2)

        def _do(self, problem: Any, X: Any, **kwargs: Any) -> Any:
            made = np.empty((2, X.shape[1], 1), dtype=object)
            for child in range(2):
                for pair in range(X.shape[1]):
                    left, right = X[child, pair, 0], X[1 - child, pair, 0]
                    made[child, pair, 0] = mended(crossover(left, right, space, rng), space, rng) or left
            return made

    class Change(Mutation):  # type: ignore[misc]
        def _do(self, problem: Any, X: Any, **kwargs: Any) -> Any:
            return _column([mended(vary([row[0]], space, rng)[0], space, rng) or row[0] for row in X])

    class Same(ElementwiseDuplicateElimination):  # type: ignore[misc]
        def is_equal(self, a: Any, b: Any) -> bool:
            return space.check(a.X[0]) == space.check(b.X[0])

    algorithm = NSGA2(
        pop_size=POPULATION, sampling=Fresh(), crossover=Merge(), mutation=Change(), eliminate_duplicates=Same()
    )
    algorithm.setup(Traces(), termination=("n_gen", 40 * count), seed=seed, verbose=False)
    for _ in range(20 * count):
        if measure.done or not algorithm.has_next():
            break
        algorithm.next()
    return list(measure.trials.values())


def tpe(problem: Searchable, count: int, seed: int, aim: Aim = FRONT_AIM) -> list[Trial]:
    """Run optuna's TPE over a flat encoding: which passes, their options, and where each stands."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rng, space, measure = np.random.default_rng(seed), problem.space, _Measurer(problem, count, aim)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bound = None if aim.excess is None else (lambda trial: (trial.user_attrs.get(_EXCESS, BROKEN),))
        sampler = optuna.samplers.TPESampler(seed=seed, constraints_func=bound)
        study = optuna.create_study(directions=["minimize"] * len(aim.failed), sampler=sampler)
        for _ in range(5 * count):
            if measure.done:
                break
            trial = study.ask()
            steps = mended(_suggested(trial, problem), space, rng)
            if steps is None:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                values, excess = measure(steps)
                trial.set_user_attr(_EXCESS, excess)
                study.tell(trial, values)
    return list(measure.trials.values())


def _suggested(trial: Any, problem: Searchable) -> Steps | None:
    chosen = []
    for name, known in problem.vocabulary.items():
        if not trial.suggest_categorical(name, [False, True]):
            continue
        found = list(known)
        for option in options(type(known[0])):
            values = sorted({getattr(step, option.name) for step in found})
            if len(values) < 2:
                continue
            if option.type in ("str", "bool") or option.choices:
                value = trial.suggest_categorical(f"{name}.{option.name}", _all(known, option.name))
            else:
                ordered = _all(known, option.name)
                value = ordered[trial.suggest_int(f"{name}.{option.name}", 0, len(ordered) - 1)]
            # Where not every combination is there, the nearest that is.
            found = [step for step in found if getattr(step, option.name) == value] or found
        chosen.append((trial.suggest_float(f"{name} stands", 0, 1), found[0]))
    return tuple(step for _, step in sorted(chosen, key=lambda pair: pair[0])) or None


def _all(known: Steps, option: str) -> list[Any]:
    return sorted({getattr(step, option) for step in known})


def _column(rows: list[Steps]) -> Any:
    made = np.empty((len(rows), 1), dtype=object)
    for index, row in enumerate(rows):
        made[index, 0] = row
    return made


RIVALS: dict[str, Method] = {"NSGA-II (pymoo)": nsga2, "TPE (optuna)": tpe}
