"""The file of searches: what arms had measured on each baseline, the targets, and the answers that follow from both."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from diffopt.bench.disk import write_bytes
from diffopt.bench.suite import task as suite_task
from diffopt.bench.suite.arms.rules import baseline
from diffopt.bench.suite.choosing import Record, chosen, keeps_quality, target_of, winners
from diffopt.bench.suite.generate import tasks
from diffopt.bench.suite.judging import judge_all
from diffopt.bench.suite.results import Results, read_json, text_hash
from diffopt.bench.suite.submission import record_faults
from diffopt.bench.suite.task import FACTORS, Difficulty, Task
from diffopt.ir.errors import DiffoptError

FORMAT = "diffbench-searches"
VERSION = 1
TARGETS = "targets"
"""The run that sets the targets, among the runs."""


@dataclass(frozen=True)
class Searches:
    """What was searched and found on some baselines.

    Args:
        seed: of the tasks.
        budgets: numbers of measured candidates at which arms are compared.
        protocol, search_protocol: on what terms answers are judged, and on what terms arms measure.
        arms: what each arm is, in words; `planner` says who planned for those that ask one.
        programs: texts by `text_hash`.
        runs: by arm, then by the hash of the baseline: pairs of passes and program, in the order of measuring.
        ended: by the hash of the baseline, the arms that had no program left to try.
        searched, judged: records by `pair_name`, on the terms of the search and on those that judge.
    """

    seed: int
    machine: Mapping[str, Any]
    budgets: Sequence[int]
    protocol: Mapping[str, Any]
    search_protocol: Mapping[str, Any]
    arms: Mapping[str, str] = field(default_factory=dict)
    planner: str = ""
    programs: Mapping[str, str] = field(default_factory=dict)
    runs: Mapping[str, Mapping[str, Sequence[Sequence[str]]]] = field(default_factory=dict)
    ended: Mapping[str, Sequence[str]] = field(default_factory=dict)
    searched: Mapping[str, Record] = field(default_factory=dict)
    judged: Mapping[str, Record] = field(default_factory=dict)
    suite: int = suite_task.VERSION

    def baselines(self) -> dict[str, str]:
        """Return the families of the baselines that have been searched, by the hash of their script."""
        known = {text_hash(baseline(task)): task.family for task in aimed(self.seed)}
        return {name: known[name] for name in self.runs.get(TARGETS, {}) if name in known}

    def records(self, family: str, base: str, *, judged: bool = False) -> dict[str, Record]:
        """Return the records of a baseline's programs, by the hash of the program."""
        start = f"{family} {base} "
        found = self.judged if judged else self.searched
        return {name.removeprefix(start): record for name, record in found.items() if name.startswith(start)}

    @cached_property
    def targets(self) -> dict[str, dict[str, float]]:
        """Return the targets by the hash of the baseline, as they follow from the search that sets them."""
        judged = {base: self.records(family, base, judged=True) for base, family in self.baselines().items()}
        won = {base: self.winner(base) for base in judged}
        return {base: target_of(judged[base][name]) for base, name in won.items() if name}

    def winner(self, base: str) -> str:
        """Return the program that sets a baseline's target; empty where none does, or it was not judged yet."""
        family = self.baselines()[base]
        judged = self.records(family, base, judged=True)
        asked = [program for _, program in self.runs[TARGETS][base]]
        *_, last = "", *winners(asked, self.records(family, base), judged)
        return last if last in judged and keeps_quality(judged[last]) else ""

    def titles(self) -> dict[str, str]:
        """Return the names of baselines for people, by their hashes: family, sampler, steps."""
        return {text_hash(baseline(t)): f"{t.family}, {t.sampler or 'own'}, {t.steps} steps" for t in aimed(self.seed)}

    def answer(self, base: str, difficulty: Difficulty, arm: str, budget: int) -> str:
        """Return the hash of an arm's answer to tasks of a baseline; empty where it was not given such a budget (yet).

        Speed-ups and latencies ask for the same of a program: the target's latency is that of the target's speed-up.
        """
        asked = self.runs.get(arm, {}).get(base, ())
        if not asked or (len(asked) < budget and arm not in self.ended.get(base, ())):
            return ""
        best = self.targets.get(base)
        required = None if best is None else best["speedup"] * FACTORS[difficulty]
        seen = [program for _, program in asked[:budget]]
        return chosen(seen, self.records(self.baselines()[base], base), required) or base

    def results(self, arm: str, budget: int) -> Results:
        """Return the judged answers of an arm at a budget, on all tasks whose baseline it searched so far."""
        searched = self.baselines()
        answers: dict[str, str] = {}
        known: dict[tuple[str, Difficulty], str] = {}
        for task in aimed(self.seed):
            base = text_hash(baseline(task))
            if task.target is None or base not in searched:
                continue
            key = base, task.target.difficulty
            if key not in known:
                known[key] = self.answer(*key, arm, budget)
            if known[key]:
                answers[task.id] = known[key]
        asked = [task for task in aimed(self.seed) if task.id in answers]
        found = Results(
            arm=f"{arm}, {budget} measured",
            seed=self.seed,
            machine=self.machine,
            protocol=self.protocol,
            programs=self.programs,
            measurements=self.judged,
            targets=self.targets,
            answers={name: {"program": program} for name, program in answers.items()},
        )
        return found.with_verdicts(judge_all(asked, found))


def aimed(seed: int) -> list[Task]:
    """Return the tasks with a target whose model is there."""
    return [task for task in tasks(seed) if task.target is not None and not task.about.unavailable()]


def answers_wanted(found: Searches, base: str) -> list[str]:
    """Return the programs that answer tasks of a baseline and were not judged yet, each once; none before it has a target."""
    if base not in found.targets:
        return []
    judged = found.records(found.baselines()[base], base, judged=True)
    wanted = [
        name
        for budget in found.budgets
        for arm in found.arms
        for difficulty in FACTORS
        if (name := found.answer(base, difficulty, arm, budget))
    ]
    return [name for name in dict.fromkeys(wanted) if name not in judged]


def searches_faults(found: Searches) -> list[str]:
    """Say what is wrong with a file of searches by itself: hashes, raw samples, and targets that do not follow."""
    faults = [f"program {name} is another text than its name says" for name, text in found.programs.items()
              if text_hash(text) != name]  # fmt: skip
    for protocol, records in ((found.search_protocol, found.searched), (found.protocol, found.judged)):
        for name, record in records.items():
            faults += [f"measurement {name}: {what}" for what in record_faults(record, protocol)]
    named = {program for runs in found.runs.values() for asked in runs.values() for _, program in asked if program}
    faults += [f"program {name} was measured and is not there" for name in sorted(named - found.programs.keys())]
    missing = [base for base in found.baselines() if base not in found.targets]
    return faults + [f"baseline {base} has no target" for base in missing]


def write_searches(path: Path, found: Searches) -> None:
    """Write searches as JSON, compressed where the name ends in .gz; equal searches are equal bytes."""
    data = {"format": FORMAT, "version": VERSION, **{item.name: getattr(found, item.name) for item in fields(found)}}
    text = (json.dumps(data, separators=(",", ":")) + "\n").encode()
    write_bytes(path, gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)


def read_searches(path: Path) -> Searches:
    """Read what `write_searches` wrote.

    Raises:
        DiffoptError: it cannot be read, or is no such file, or of another version.
    """
    return searches_of(read_json(path), path)


def searches_of(data: object, path: Path) -> Searches:
    """Take searches from JSON data.

    Raises:
        DiffoptError: they are none, or of another version.
    """
    hint = "give a file that `diffopt bench search` wrote"
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise DiffoptError("no searches of DiffBench", str(path), hint)
    if data.get("version") != VERSION or data.get("suite") != suite_task.VERSION:
        raise DiffoptError("of another version", str(path), "search again")
    try:
        found = Searches(**{name: value for name, value in data.items() if name not in ("format", "version")})
        tables = (found.arms, found.programs, found.runs, found.searched, found.judged)
        if not all(isinstance(table, dict) for table in tables) or not isinstance(found.seed, int):
            raise TypeError
    except TypeError:
        raise DiffoptError("a part is missing or of another kind", str(path), hint) from None
    return found
