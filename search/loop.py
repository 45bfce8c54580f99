"""The loop of a search: ask, measure, tell, until the budget is spent or no gain is in sight."""

from __future__ import annotations

import time
from collections.abc import Callable

from diffopt.search.budget import Budget, no_gain_in_sight
from diffopt.search.engine import Engine
from diffopt.search.executors.local import Executor
from diffopt.search.records import Trial


def search(
    engine: Engine,
    executor: Executor,
    budget: Budget,
    *,
    clock: Callable[[], float] = time.monotonic,
    on_trial: Callable[[Trial], None] | None = None,
) -> str:
    """Measure candidates until there is a reason to stop, and return that reason in a few words.

    Every outcome is in the store before `on_trial` hears of it. What runs when the budget ends is waited for, and its
    outcome kept. An exception, such as an interrupt, leaves the candidates in flight pending in the store.
    """
    started = clock()
    in_flight = 0
    reason: str | None = None
    while True:
        while reason is None and executor.free:
            reason = _reason_to_stop(engine, budget, clock() - started, in_flight)
            candidate = engine.ask() if reason is None else None
            if candidate is None:
                reason = reason or "every program was tried"
                break
            executor.submit(candidate)
            in_flight += 1
        if not in_flight:
            return reason or "nothing to do"
        candidate, outcome = executor.wait()
        in_flight -= 1
        engine.tell(candidate, outcome)
        if on_trial is not None:
            on_trial(Trial(candidate, outcome))


def _reason_to_stop(engine: Engine, budget: Budget, seconds: float, in_flight: int) -> str | None:
    trials = engine.trials()
    spent = budget.spent(seconds, len(trials) + in_flight)
    if spent is not None or not budget.early:
        return spent
    return no_gain_in_sight(trials, engine.constraints)
