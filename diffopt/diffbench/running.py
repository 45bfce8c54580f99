"""Run the searches of baselines: targets first, then every arm, all out of one store of measurements."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from diffopt.bench import device
from diffopt.bench.forkserver import ForkServer
from diffopt.bench.suite.choosing import Record, winners
from diffopt.bench.suite.families import FAMILIES
from diffopt.bench.suite.measuring import Protocol, fork_server
from diffopt.bench.suite.meter import Meter, OutOfTime
from diffopt.bench.suite.results import text_hash
from diffopt.bench.suite.searches import TARGETS, Searches, aimed, answers_wanted
from diffopt.bench.suite.store import MeasurementStore
from diffopt.diffbench.arms import ARMS, TARGET_ARM, TARGET_COUNT, TARGET_SEED, Arm, PlannerFor, mechanical
from diffopt.diffbench.problem import Baseline, BaselineProblem

ARM_SEED = 0
BUDGETS = (1, 28, 60)
"""Numbers of measured candidates: the first idea, what the paper's agent measures, and twice that."""


@dataclass(frozen=True)
class Terms:
    """What is searched and on what terms.

    Args:
        judging, searching: protocols; the second sees other prompts than the first.
        planner: who plans for the arms that ask one, in words; `plan` makes it.
    """

    judging: Protocol
    searching: Protocol
    arms: Sequence[str] = tuple(ARMS)
    budgets: Sequence[int] = BUDGETS
    seed: int = 0
    target_count: int = TARGET_COUNT
    planner: str = "no language model: plans from diffopt's rules, random ones, and random changes of measured ones"
    plan: PlannerFor = mechanical


def baselines_of(seed: int, count: int | None = None) -> list[Baseline]:
    """Return the baselines of levels 4 and 5 whose model is there: one of each family in turn, most tasks first."""
    tasks = Counter(Baseline(task.family, task.sampler, task.steps) for task in aimed(seed))
    ranked = [found for found, _ in sorted(tasks.items(), key=lambda item: (-item[1], str(item[0])))]
    turn = {found: sum(other.family == found.family for other in ranked[:at]) for at, found in enumerate(ranked)}
    families = list(FAMILIES)
    return sorted(ranked, key=lambda found: (turn[found], families.index(found.family)))[:count]


def run_searches(
    baselines: Sequence[Baseline],
    store: MeasurementStore,
    terms: Terms,
    *,
    work: Path,
    seconds: float | None = None,
    listen: Callable[[str], None] = lambda text: None,
    clock: Callable[[], float] = time.monotonic,
    server_of: Callable[[Path, Protocol], ForkServer] = fork_server,
    meter_of: type[Meter] = Meter,
) -> Searches:
    """Search, set targets, judge the answers, and return all that is known; what the store has is not measured again.

    In order: for each baseline the search that sets its target; then for each budget and each baseline every arm, and what
    answers its tasks is judged. A run that is cut short has finished whatever comes first, and goes on there the next time.

    Args:
        seconds: start no measurement after these; 0 measures nothing.

    Raises:
        DiffoptError: a baseline does not run, or the disk is full.
    """
    end = clock() + (float("inf") if seconds is None else seconds)
    found = _Found(terms)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(server_of(work, terms.judging))
        desks = [
            _Desk(
                one,
                terms,
                found,
                partial(
                    meter_of,
                    one.family,
                    one.script,
                    store,
                    work=work,
                    server=server,
                    end=end,
                    listen=listen,
                    clock=clock,
                ),
                listen=listen,
            )
            for one in baselines
        ]
        for step in _steps(desks, terms):
            with contextlib.suppress(OutOfTime):
                step()
    return found.searches()


def _steps(desks: Sequence[_Desk], terms: Terms) -> Iterator[Callable[[], None]]:
    """Yield what there is to do, what matters most first."""
    for desk in desks:
        yield desk.set_target
    # The first program of a larger budget is that of a budget of one.
    for budget in [budget for budget in terms.budgets if budget > 1] or terms.budgets:
        for desk in desks:
            for name in terms.arms:
                yield lambda desk=desk, name=name, budget=budget: desk.search(ARMS[name], budget)  # type: ignore[misc]
                yield desk.judge


class _Found:
    """What is found, as it grows."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.programs: dict[str, str] = {}
        self.runs: dict[str, dict[str, Sequence[Sequence[str]]]] = {}
        self.ended: dict[str, list[str]] = {}
        self.searched: dict[str, Record] = {}
        self.judged: dict[str, Record] = {}

    def searches(self) -> Searches:
        terms = self.terms
        return Searches(
            seed=terms.seed,
            machine={
                "devices": device.devices(accelerators=terms.judging.target != "cpu"), "versions": device.versions(),
            },
            budgets=list(terms.budgets),
            protocol=terms.judging.to_json(),
            search_protocol=terms.searching.to_json(),
            arms={name: ARMS[name].text for name in terms.arms},
            planner=terms.planner,
            programs=self.programs,
            runs=self.runs,
            ended=self.ended,
            searched=self.searched,
            judged=self.judged,
        )  # fmt: skip


class _Desk:
    """The work on one baseline: two meters over the store, and what is found."""

    def __init__(
        self, baseline: Baseline, terms: Terms, found: _Found, meter_of: Callable[..., Meter],
        *, listen: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._baseline, self._terms, self._found, self._listen = baseline, terms, found, listen
        self._script = baseline.script
        self._base = text_hash(self._script)
        found.programs[self._base] = self._script
        self._searching, self._judging = meter_of(protocol=terms.searching), meter_of(protocol=terms.judging)

    def set_target(self) -> None:
        """Have the search run that sets the target, and its winner judged."""
        self._run(TARGETS, ARMS[TARGET_ARM], self._terms.target_count, TARGET_SEED)
        asked = [program for _, program in self._found.runs[TARGETS][self._base]]
        searched = {name: r for name in asked if (r := self._found.searched.get(self._pair(name))) is not None}
        judged: dict[str, Record] = {}
        with self._judging:
            for name in winners(asked, searched, judged):
                judged[name] = self._judged(name)
        target = self._found.searches().targets.get(self._base)
        said = "no target" if target is None else f"the target is {target['speedup']:.2f}x"
        self._listen(f"{self._baseline}: {said}")

    def search(self, arm: Arm, budget: int) -> None:
        """Have an arm search up to a budget."""
        self._run(arm.name, arm, budget, ARM_SEED)

    def judge(self) -> None:
        """Judge what answers the tasks."""
        with self._judging:
            for name in answers_wanted(self._found.searches(), self._base):
                self._judged(name)

    def _run(self, name: str, arm: Arm, count: int, seed: int) -> None:
        problem = BaselineProblem(self._baseline, self._record, whole=arm.whole)
        whole = False
        try:
            with self._searching:
                arm.search(problem, count, seed, self._terms.plan)
            whole = True
            if len(problem.asked) < count and name not in (ended := self._found.ended.setdefault(self._base, [])):
                ended.append(name)
        finally:
            asked = [[one.trace, one.program] for one in problem.asked.values()][:count]
            self._found.programs |= problem.programs
            # Half a search sets no target.
            if whole or name != TARGETS:
                self._found.runs.setdefault(name, {})[self._base] = asked
            self._listen(f"{self._baseline}: {name} has {len(asked)} of {count}")

    def _record(self, code: str, trace: str) -> Record:
        made = self._searching.record(code, trace)
        self._found.searched[self._pair(text_hash(code))] = short(made)
        return made

    def _judged(self, name: str) -> Record:
        made = self._judging.record(self._found.programs[name], "judged")
        self._found.judged[self._pair(name)] = short(made)
        return made

    def _pair(self, program: str) -> str:
        return f"{self._baseline.family} {self._base} {program}"


def short(record: Record) -> dict[str, Any]:
    """Return a record without what the file says once, or nobody reads: environment, log, and the list of worst images."""
    outcome: dict[str, Any] = dict(record["outcome"])
    if "fidelity" in outcome:
        outcome["environment"] = {}
        outcome["fidelity"] = {**outcome["fidelity"], "worst": []}
    else:
        outcome["log"] = ""
    return {**record, "outcome": outcome}
