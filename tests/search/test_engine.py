from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from xdsl.dialects.builtin import ModuleOp

from diffopt.bench.outcome import Failed, Measured, Outcome
from diffopt.ir.errors import DiffoptError
from diffopt.passes.base import Refusal, registry
from diffopt.passes.pipeline import Trace, key
from diffopt.search.engine import Engine, Settings
from diffopt.search.goals import Constraints
from diffopt.search.presets import RuleProposer
from diffopt.search.records import Candidate, Proposer
from diffopt.search.selection import hypervolume
from diffopt.search.space import PassSpace
from diffopt.search.store import MEMORY, Store

Evaluate = Callable[[Candidate], Outcome]


def run(engine: Engine, evaluate: Evaluate, count: int) -> list[Candidate]:
    """Ask and tell `count` times, or until there is nothing left."""
    asked = []
    for _ in range(count):
        candidate = engine.ask()
        if candidate is None:
            break
        engine.tell(candidate, evaluate(candidate))
        asked.append(candidate)
    return asked


def open_engine(problem: Any, store: Store, *proposers: Proposer, **more: Any) -> Engine:
    module: Any = None
    return Engine(module, store, run_id="r", space=problem, proposers=proposers, **more)


def by_facts(outcome: Callable[..., Measured]) -> Evaluate:
    """Return a plausible landscape over real programs, from their facts alone."""

    def evaluate(candidate: Candidate) -> Outcome:
        facts = candidate.facts
        speed = 50 / facts["steps"] * (3 if any("export" in name for name in facts) else 1)
        return outcome(speed, 20 + 12 * facts["log steps"] + facts["full share"], 1.0)

    return evaluate


@pytest.mark.slow
def test_no_illegal_program_and_no_program_twice(synthetic: Callable[..., Any]) -> None:
    problem = synthetic(seed=1)
    with Store(MEMORY) as store:
        asked = run(open_engine(problem, store, settings=Settings(offspring=8, rounds=1)), problem.evaluate, 120)
    keys = [problem.check(problem.parse(c.trace).passes).key for c in asked]
    assert keys == [c.key for c in asked]
    assert len(set(keys)) == 120
    assert problem.check(()).key not in keys


@pytest.mark.slow
def test_no_illegal_program_and_no_program_twice_over_real_passes(
    module: ModuleOp, outcome: Callable[..., Measured]
) -> None:
    with Store(MEMORY) as store:
        engine = Engine(module, store, run_id="r", proposers=[RuleProposer()], settings=Settings(offspring=3, rounds=1))
        asked = run(engine, by_facts(outcome), 100)
    keys = [key(Trace.parse(c.trace), module) for c in asked]
    assert not any(isinstance(k, Refusal) for k in keys)
    assert keys == [c.key for c in asked]
    assert len(set(keys)) == 100


def test_the_same_tells_give_the_same_candidates(synthetic: Callable[..., Any], experts: Callable[..., Any]) -> None:
    problem = synthetic(seed=2)
    runs = []
    for _ in range(2):
        with Store(MEMORY) as store:
            runs.append(run(open_engine(problem, store, experts(problem), seed=5), problem.evaluate, 25))
    assert [(c.trace, c.predicted) for c in runs[0]] == [(c.trace, c.predicted) for c in runs[1]]


def test_another_seed_gives_other_candidates(synthetic: Callable[..., Any]) -> None:
    traces = []
    for seed in (1, 2):
        with Store(MEMORY) as store:
            traces.append([c.trace for c in run(open_engine(synthetic(), store, seed=seed), synthetic().evaluate, 5)])
    assert traces[0] != traces[1]


def test_stopping_and_resuming_changes_nothing(
    tmp_path: Path, synthetic: Callable[..., Any], experts: Callable[..., Any]
) -> None:
    problem = synthetic(seed=3)
    with Store(MEMORY) as store:
        whole = run(open_engine(problem, store, experts(problem)), problem.evaluate, 24)
    parts: list[Candidate] = []
    for _ in range(8):
        with Store(tmp_path / "s") as store:
            engine = open_engine(problem, store, experts(problem), seed=0)
            parts += run(engine, problem.evaluate, 3)
            engine.ask()
    assert parts == whole


def test_proposers_are_asked_once_in_the_life_of_a_run(
    tmp_path: Path, synthetic: Callable[..., Any], experts: Callable[..., Any]
) -> None:
    problem = synthetic()
    proposer = experts(problem)
    for _ in range(3):
        with Store(tmp_path / "s") as store:
            run(open_engine(problem, store, proposer), problem.evaluate, 2)
    assert proposer.calls == 1


def test_seeds_come_first_and_refused_ones_leave_their_reason(synthetic: Callable[..., Any]) -> None:
    problem = synthetic()

    class Plans:
        name = "plans"

        def propose(self, module: ModuleOp, history: Sequence[object], count: int) -> list[Trace]:
            texts = ("fuse", 'engine{backend="x" half=true},graph', "tile{size=16}", "fuse", "")
            return [problem.parse(text) for text in texts]

    with Store(MEMORY) as store:
        asked = run(open_engine(problem, store, Plans()), problem.evaluate, 2)
        attempts = store.attempts("r")
    assert [(c.trace, c.origin) for c in asked] == [("fuse", "plans"), ("tile{size=16}", "plans")]
    assert [(a.trace, a.reason, a.rule) for a in attempts] == [
        ('engine{backend="x" half=true},graph', "excluded", "exclusion"),
        ("fuse", "leads to the same program as fuse", ""),
        ("", "leads to the same program as the baseline", ""),
    ]


def test_what_is_measured_quickly_is_not_pondered_for_long(
    synthetic: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def looked_at(build_s: float) -> int:
        problem, counted = synthetic(seed=3), [0]
        original = problem.check

        def check(steps: Any) -> Any:
            counted[0] += 1
            return original(steps)

        with Store(MEMORY) as store:
            engine = Engine(problem.module, store, run_id="r", space=problem)
            for _ in range(8):
                asked = engine.ask()
                assert asked is not None
                engine.tell(asked, replace(problem.evaluate(asked), build_s=build_s))
            with monkeypatch.context() as patch:
                patch.setattr(type(problem), "check", lambda self, steps: check(steps))
                engine.ask()
        return counted[0]

    assert looked_at(0.1) * 1.5 < looked_at(600.0)


def test_what_was_asked_and_not_told_is_asked_again_with_its_id(tmp_path: Path, synthetic: Callable[..., Any]) -> None:
    problem = synthetic()
    with Store(tmp_path / "s") as store:
        engine = open_engine(problem, store)
        lost = [engine.ask() for _ in range(3)]
        assert len({c.key for c in lost if c}) == 3
    with Store(tmp_path / "s") as store:
        assert [open_engine(problem, store).ask() for _ in range(1)] == lost[:1]
    with Store(tmp_path / "s") as store:
        engine = open_engine(problem, store)
        assert [engine.ask() for _ in range(3)] == lost
        assert engine.ask() not in lost


def test_an_exhausted_space_ends_the_search(synthetic: Callable[..., Any]) -> None:
    problem = synthetic(names=("fuse", "layout", "graph"))
    with Store(MEMORY) as store:
        engine = open_engine(problem, store)
        asked = run(engine, problem.evaluate, 50)
        assert engine.ask() is None
    # Every non-empty subset of three passes, whose order never matters among them.
    assert len(asked) == 7


def test_failures_never_enter_the_front_or_win(synthetic: Callable[..., Any], experts: Callable[..., Any]) -> None:
    problem = synthetic(broken='backend="x"')
    with Store(MEMORY) as store:
        engine = open_engine(problem, store, experts(problem))
        run(engine, problem.evaluate, 30)
        failed = [t for t in engine.trials() if isinstance(t.outcome, Failed)]
        assert failed
        assert not any(isinstance(t.outcome, Failed) for t in (*engine.front(), *engine.winners().values()))
        assert engine.front()
    assert len(failed) <= 8


def test_all_failing_programs_do_not_stop_the_asking(synthetic: Callable[..., Any]) -> None:
    problem = synthetic()
    with Store(MEMORY) as store:
        engine = open_engine(problem, store)
        assert len(run(engine, lambda _: Failed("crash", "died"), 15)) == 15
        assert engine.front() == ()
        assert engine.winners() == {}


def test_a_run_of_another_pipeline_is_refused(tmp_path: Path, synthetic: Callable[..., Any], module: ModuleOp) -> None:
    with Store(tmp_path / "s") as store:
        open_engine(synthetic(), store)
        with pytest.raises(DiffoptError, match="made with another pipeline"):
            Engine(module, store, run_id="r")


def test_kept_steps_are_kept_in_every_candidate(module: ModuleOp, outcome: Callable[..., Measured]) -> None:
    with Store(MEMORY) as store:
        engine = Engine(
            module,
            store,
            run_id="r",
            proposers=[RuleProposer()],
            constraints=Constraints(keep_steps=True),
            settings=Settings(offspring=4, rounds=1),
        )
        asked = run(engine, by_facts(outcome), 15)
        assert "keep-steps" in {a.rule for a in store.attempts("r")}
    assert {c.facts["steps"] for c in asked} == {50.0}


def test_constraints_draw_the_search_inside(synthetic: Callable[..., Any]) -> None:
    problem = synthetic(seed=4)
    inside = []
    for constraints in (Constraints(), Constraints(min_psnr=45.0)):
        with Store(MEMORY) as store:
            engine = open_engine(problem, store, constraints=constraints)
            asked = run(engine, problem.evaluate, 40)[12:]
            psnr = [problem.effect(problem.parse(c.trace).passes)[1] for c in asked]
            inside.append(sum(p >= 45 for p in psnr))
            if constraints.min_psnr:
                assert all(t.outcome.fidelity.psnr_median >= 45 for t in engine.front())  # type: ignore[union-attr]
    assert inside[1] > inside[0]


def true_volume(problem: Any, traces: Sequence[str]) -> float:
    points = []
    for text in traces:
        ratio, psnr, memory = problem.effect(problem.parse(text).passes)
        points.append([-np.log(ratio), -min(psnr, 80.0), np.log(memory)])
    return hypervolume(np.array(points))


def true_speeds(problem: Any, traces: Sequence[str]) -> list[float]:
    """Return the log speed-up of the fastest program at 45, 35 and 25 dB."""
    truths = [problem.effect(problem.parse(text).passes) for text in traces]
    return [max((np.log(r) for r, psnr, _ in truths if psnr >= floor), default=0.0) for floor in (45, 35, 25)]


@pytest.mark.slow
def test_seeded_search_beats_random_at_equal_budget(
    synthetic: Callable[..., Any], experts: Callable[..., Any], random_programs: Callable[..., list[str]]
) -> None:
    ratios: list[float] = []
    speeds: list[float] = []
    for seed in range(5):
        problem = synthetic(seed=seed)
        settings = Settings(offspring=20)
        with Store(MEMORY) as store:
            engine = open_engine(problem, store, experts(problem), seed=seed, settings=settings)
            asked = run(engine, problem.evaluate, 28)
        ours, theirs = [c.trace for c in asked], random_programs(problem, 28, seed)
        ratios.append(true_volume(problem, ours) / true_volume(problem, theirs))
        speeds.append(float(np.mean(true_speeds(problem, ours)) - np.mean(true_speeds(problem, theirs))))
    assert np.mean(ratios) > 1.05
    assert min(speeds) > 0
    assert np.exp(np.mean(speeds)) > 1.5


CHILD = """
import os, sys
from diffopt.bench.outcome import Fidelity, Latency, Measured, Memory
from diffopt.ir.identity import parse_module
from diffopt.search import Engine, RuleProposer, Settings, Store

def measure(c):
    with open(sys.argv[3], "a") as log:
        print(c.id, c.key, file=log, flush=True)
    ratio = 50 / c.facts["steps"]
    return Measured(Latency(ratio, ratio, ratio, 5, (1.0,), (1 / ratio,)),
                    Fidelity(40, 30, 20, 1, None, None, None, None, 1, ()), Memory(1, 1), 1, 1, 1, (), "near")

with Store(sys.argv[2]) as store:
    engine = Engine(parse_module(open(sys.argv[1]).read()), store, run_id="r", proposers=[RuleProposer()],
                    settings=Settings(offspring=3, rounds=1))
    for number in range(12):
        candidate = engine.ask()
        outcome = measure(candidate)
        print(number, flush=True)
        sys.stdin.readline()
        engine.tell(candidate, outcome)
"""


@pytest.mark.slow
def test_killed_between_ask_and_tell_it_loses_and_repeats_nothing(module: ModuleOp, tmp_path: Path) -> None:
    from diffopt.ir.identity import print_module

    (tmp_path / "module.mlir").write_text(print_module(module), encoding="utf-8")
    log = tmp_path / "log"
    for tells in (0, 2, 5):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, tmp_path / "module.mlir", tmp_path / "s", log],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )
        assert child.stdin is not None
        assert child.stdout is not None
        for number in range(tells + 1):
            assert child.stdout.readline() == f"{number}\n"
            if number < tells:
                child.stdin.write("\n")
                child.stdin.flush()
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdin.close()
        child.stdout.close()
    measured = [line.split() for line in log.read_text().splitlines()]
    # Only what was in flight when it was killed is measured again, under the same id.
    assert [number for number, _ in measured] == ["1", "1", "2", "3", "3", "4", "5", "6", "7", "8"]
    assert len({k for _, k in measured}) == 8
    with Store(tmp_path / "s") as store:
        assert [t.candidate.id for t in store.trials("r")] == [1, 2, 3, 4, 5, 6, 7]
        assert [c.id for c in store.pending("r")] == [8]
        engine = Engine(module, store, run_id="r", proposers=[RuleProposer()])
        again = engine.ask()
        assert again is not None
        assert (again.id, again.key) == (8, measured[-1][1])


def test_the_space_of_a_real_module_is_checked_as_the_pipeline_checks_it(module: ModuleOp) -> None:
    space = PassSpace(module)
    for trace in RuleProposer().propose(module, (), 50):
        legal = space.check(trace.passes)
        assert getattr(legal, "key", None) == key(trace, module)


def test_what_a_space_forgot_it_makes_again(module: ModuleOp) -> None:
    proposed = RuleProposer().propose(module, (), 20)
    large, small = PassSpace(module), PassSpace(module, memory=1)
    for trace in (*proposed, *reversed(proposed)):
        assert small.check(trace.passes) == large.check(trace.passes)
        for name in ("guidance-window", "export"):
            assert small.instances(name, trace.passes[:1]) == large.instances(name, trace.passes[:1])
    assert len(small._programs) == 1


def test_passes_for_another_kind_of_device_are_left_out(module: ModuleOp) -> None:
    kernels = {name for name, found in registry().items() if found.devices}
    assert "fuse-group-norm" in kernels
    assert not kernels & set(PassSpace(module).names)
    assert kernels < set(PassSpace(module, device="cuda:0").names) == set(registry())
