from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from diffopt.bench.outcome import Failed, Outcome
from diffopt.ir.errors import DiffoptError
from diffopt.search.budget import Budget
from diffopt.search.engine import Engine, Settings
from diffopt.search.executors.local import LocalExecutor
from diffopt.search.loop import search
from diffopt.search.records import Candidate, Trial
from diffopt.search.store import MEMORY, Store


def engine_of(problem: Any, store: Store) -> Engine:
    module: Any = None
    return Engine(module, store, run_id="r", space=problem)


def test_it_measures_as_many_as_the_budget_says_over_all_sessions(synthetic: Callable[..., Any]) -> None:
    problem = synthetic()
    heard: list[Trial] = []
    with Store(MEMORY) as store:
        for budget in (5, 8, 8):
            engine = engine_of(problem, store)
            reason = search(engine, LocalExecutor(problem.evaluate), Budget(candidates=budget), on_trial=heard.append)
            assert reason == f"{budget} candidates measured"
        assert [t.candidate.id for t in store.trials("r")] == list(range(1, 9))
    assert [t.candidate.id for t in heard] == list(range(1, 9))


def test_time_is_that_of_the_session(synthetic: Callable[..., Any]) -> None:
    problem, ticks = synthetic(), iter(range(0, 1000, 10))
    with Store(MEMORY) as store:
        engine = engine_of(problem, store)
        reason = search(engine, LocalExecutor(problem.evaluate), Budget(seconds=35), clock=lambda: float(next(ticks)))
        assert reason == "35 s used"
        assert len(store.trials("r")) == 3


def test_it_ends_when_every_program_was_tried(synthetic: Callable[..., Any]) -> None:
    problem = synthetic(names=("fuse", "layout"))
    with Store(MEMORY) as store:
        assert search(engine_of(problem, store), LocalExecutor(problem.evaluate), Budget()) == "every program was tried"
        assert len(store.trials("r")) == 3


def test_it_stops_early_where_no_gain_is_in_sight_unless_told_to_go_on(
    synthetic: Callable[..., Any], module: Any
) -> None:
    problem = synthetic(names=("fewer", "engine", "fuse", "layout", "tile"))
    with Store(MEMORY) as store:
        engine = Engine(module, store, run_id="r", space=problem, settings=Settings(offspring=20, rounds=1))
        reason = search(engine, LocalExecutor(problem.evaluate), Budget(candidates=120))
        count = len(store.trials("r"))
        more = search(engine, LocalExecutor(problem.evaluate), Budget(candidates=count + 1, early=False))
    assert 20 < count < 120
    assert "under the noise" in reason
    assert more == f"{count + 1} candidates measured"


def test_an_interrupt_leaves_the_candidate_pending(synthetic: Callable[..., Any]) -> None:
    def interrupted(candidate: Candidate) -> Outcome:
        raise KeyboardInterrupt

    with Store(MEMORY) as store:
        with pytest.raises(KeyboardInterrupt):
            search(engine_of(synthetic(), store), LocalExecutor(interrupted), Budget(candidates=3))
        assert [c.id for c in store.pending("r")] == [1]


def test_a_defect_becomes_an_outcome_with_its_traceback(synthetic: Callable[..., Any]) -> None:
    def broken(candidate: Candidate) -> Outcome:
        raise RuntimeError("emission went wrong\nbadly")

    with Store(MEMORY) as store:
        search(engine_of(synthetic(), store), LocalExecutor(broken), Budget(candidates=2))
        outcome = store.trials("r")[0].outcome
    assert isinstance(outcome, Failed)
    assert outcome.message == "RuntimeError: emission went wrong"
    assert "in broken" in outcome.log


def test_bad_input_found_while_measuring_ends_the_search(synthetic: Callable[..., Any]) -> None:
    def full(candidate: Candidate) -> Outcome:
        raise DiffoptError("the disk is full")

    with Store(MEMORY) as store, pytest.raises(DiffoptError, match="the disk is full"):
        search(engine_of(synthetic(), store), LocalExecutor(full), Budget(candidates=2))


def test_a_local_executor_takes_one_at_a_time() -> None:
    executor = LocalExecutor(lambda candidate: Failed("crash", "died"))
    with pytest.raises(ValueError, match="nothing was submitted"):
        executor.wait()
    executor.submit(Candidate(1, "fuse", "k", "test"))
    assert not executor.free
    with pytest.raises(ValueError, match="one candidate at a time"):
        executor.submit(Candidate(2, "tile", "l", "test"))
