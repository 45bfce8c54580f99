"""Run tasks: ask an arm, judge the code, measure what is not measured yet, and put it all into one file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffopt.bench import device
from diffopt.bench.suite.arms import rules
from diffopt.bench.suite.arms.rules import Answer, baseline
from diffopt.bench.suite.generate import PUBLIC_SEED, tasks
from diffopt.bench.suite.judging import judge_all
from diffopt.bench.suite.measuring import Job, Protocol, measure
from diffopt.bench.suite.results import Results, pair_name, text_hash
from diffopt.bench.suite.static_gate import static_gate
from diffopt.bench.suite.store import MeasurementStore
from diffopt.bench.suite.task import Task
from diffopt.ir.errors import DiffoptError

Arm = Callable[[Task], Answer]
ARMS: Mapping[str, Arm] = {"rules": rules.answer}
SMOKE = 8
"""Tasks a level in the smoke subset."""


@dataclass(frozen=True)
class Choice:
    """Which tasks: of these levels, of these names, so many a level, spread evenly; all where nothing is said."""

    levels: tuple[int, ...] = ()
    ids: tuple[str, ...] = ()
    count: int | None = None
    seed: int = PUBLIC_SEED


def chosen(choice: Choice) -> list[Task]:
    """Return the tasks that were chosen.

    Raises:
        DiffoptError: a name is of no task.
    """
    every = tasks(choice.seed)
    unknown = sorted(set(choice.ids) - {task.id for task in every})
    if unknown:
        raise DiffoptError(f"no task is called {unknown[0]!r}", where="--ids", hint=f"they are called as {every[0].id}")
    found = [task for task in every if not choice.ids or task.id in choice.ids]
    found = [task for task in found if not choice.levels or task.level in choice.levels]
    return found if choice.count is None else spread(found, choice.count)


def spread(found: Sequence[Task], count: int) -> list[Task]:
    """Return so many tasks of each level, evenly spread over it."""
    kept: list[Task] = []
    for level in sorted({task.level for task in found}):
        mine = [task for task in found if task.level == level]
        number = min(count, len(mine))
        kept += [mine[index * len(mine) // number] for index in range(number)]
    return kept


def folder_arm(folder: Path) -> Arm:
    """Return the arm that hands in the scripts of a folder, `TASK.py` each.

    Raises:
        DiffoptError: there is no such folder.
    """
    if not folder.is_dir():
        raise DiffoptError("no such folder", where=str(folder), hint="give --answers a folder of TASK.py scripts")

    def answer(task: Task) -> Answer:
        path = folder / f"{task.id}.py"
        if not path.is_file():
            return Answer(refused="nothing was handed in")
        try:
            return Answer(path.read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            return Answer(refused="no UTF-8 text")
        except OSError as error:
            return Answer(refused=f"cannot be read: {error.strerror}")

    return answer


def run_tasks(
    asked: Sequence[Task],
    arm: Arm,
    name: str,
    store: MeasurementStore,
    *,
    protocol: Protocol,
    work: Path,
    seed: int = PUBLIC_SEED,
    seconds: float | None = None,
    targets: Mapping[str, Mapping[str, float]] | None = None,
    listen: Callable[[str], None] = lambda text: None,
) -> Results:
    """Return an arm's results on tasks.

    Args:
        seconds: start no measurement after these; 0 measures nothing, and what the store has is used.
        targets: see `Results`.

    Raises:
        DiffoptError: a baseline does not run, or the disk is full.
    """
    answers = {task.id: arm(task) for task in asked}
    wanted = [(task, _job(task, answers[task.id])) for task in asked if _measurable(task, answers[task.id])]
    if seconds is None or seconds > 0:
        jobs = [job for _, job in wanted]
        measure(jobs, store, protocol=protocol, work=work, seconds=seconds, listen=listen)
    measurements: dict[str, Mapping[str, Any]] = {}
    for _, job in wanted:
        record = store.get(job.key(protocol))
        if record is not None:
            measurements[pair_name(job.family, job.baseline, job.code)] = record
    texts = [answer.code for answer in answers.values() if answer.code] + [baseline(task) for task in asked]
    results = Results(
        arm=name,
        seed=seed,
        machine={"devices": device.devices(accelerators=protocol.target != "cpu"), "versions": device.versions()},
        protocol=protocol.to_json(),
        programs={text_hash(text): text for text in texts},
        measurements=measurements,
        targets=dict(targets or {}),
        answers={identity: _entry(answer) for identity, answer in answers.items()},
    )
    return results.with_verdicts(judge_all(asked, results))


def _measurable(task: Task, answer: Answer) -> bool:
    return bool(answer.code) and not task.about.unavailable() and static_gate(task, answer.code).passed


def _job(task: Task, answer: Answer) -> Job:
    return Job(task.family, baseline(task), answer.code, task.level > 3)


def _entry(answer: Answer) -> dict[str, str]:
    if not answer.code:
        return {"refused": answer.refused}
    return {"program": text_hash(answer.code)} | ({"trace": answer.trace} if answer.trace else {})


def tasks_of(results: Results, only: Iterable[str] | None = None) -> list[Task]:
    """Return the tasks that results are about.

    Raises:
        DiffoptError: one of them is no task of the suite.
    """
    known = {task.id: task for task in tasks(results.seed)}
    for identity in results.answers:
        if identity not in known:
            raise DiffoptError(f"{identity!r} is no task of seed {results.seed}", where="answers")
    wanted = set(results.answers if only is None else only)
    return [task for identity, task in known.items() if identity in wanted]
