"""The methods that are compared: ours with and without seeds, and what needs no library."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from diffopt.search.engine import Engine, Settings
from diffopt.search.goals import Constraints
from diffopt.search.records import Proposer, Trial
from diffopt.search.repair import repair
from diffopt.search.space import Space, Steps
from diffopt.search.store import MEMORY, Store
from diffopt.search.study.problem import Method, Searchable, candidate
from diffopt.search.variation import fresh, vary

FRONT = Settings(levels=(), offspring=60, patience=None)
"""Search for the front alone, what all methods here are compared by; and look at more programs, as checking one is cheap."""

ATTEMPTS = 200
"""Draws for one new program, before a method is said to have run out of them."""


def with_seeds(problem: Searchable, count: int, seed: int) -> list[Trial]:
    """Search as diffopt does, from the programs that rules or a planner propose."""
    return searched(problem, count, seed, problem.seeds())


def without_seeds(problem: Searchable, count: int, seed: int) -> list[Trial]:
    """Search as diffopt does, from nothing."""
    return searched(problem, count, seed, ())


def searched(
    problem: Searchable,
    count: int,
    seed: int,
    proposers: Sequence[Proposer],
    settings: Settings = FRONT,
    constraints: Constraints | None = None,
) -> list[Trial]:
    """Run the engine on a problem."""
    with Store(MEMORY) as store:
        engine = Engine(
            problem.module,
            store,
            run_id="study",
            seed=seed,
            proposers=proposers,
            constraints=constraints,
            space=problem.space,
            settings=settings,
        )
        for _ in range(count):
            asked = engine.ask()
            if asked is None:
                break
            engine.tell(asked, problem.evaluate(asked))
        return list(engine.trials())


def random_legal(problem: Searchable, count: int, seed: int) -> list[Trial]:
    """Measure random legal programs, no two the same."""
    rng = np.random.default_rng(seed)
    return _measured(problem, (fresh(problem.space, rng) for _ in range(ATTEMPTS * count)), count, rng)


def best_of_n(problem: Searchable, count: int, seed: int) -> list[Trial]:
    """Measure the seeds, then programs one or two changes away from one of them, whatever was measured so far."""
    rng = np.random.default_rng(seed)
    proposed = [trace.passes for p in problem.seeds() for trace in p.propose(problem.module, (), count)]

    def draws() -> Iterator[Steps | None]:
        yield from proposed
        for _ in range(ATTEMPTS * count):
            steps: Steps | None = proposed[int(rng.integers(len(proposed)))]
            for _ in range(int(rng.integers(1, 3))):
                steps = vary([steps], problem.space, rng)[0] if steps else None
            yield steps

    return _measured(problem, draws(), count, rng)


def _measured(problem: Searchable, draws: Iterator[Steps | None], count: int, rng: np.random.Generator) -> list[Trial]:
    found: dict[str, Trial] = {}
    for drawn in draws:
        steps = mended(drawn, problem.space, rng)
        if steps is None:
            continue
        asked = candidate(problem.space, steps, len(found) + 1)
        if asked.key not in found:
            found[asked.key] = Trial(asked, problem.evaluate(asked))
        if len(found) == count:
            break
    return list(found.values())


def mended(steps: Steps | None, space: Space, rng: np.random.Generator) -> Steps | None:
    """Return a legal program near this one, or `None`."""
    return repair(steps, space, rng) if steps else None


METHODS: dict[str, Method] = {
    "ours with seeds": with_seeds,
    "ours without seeds": without_seeds,
    "random legal": random_legal,
    "best of n": best_of_n,
}
