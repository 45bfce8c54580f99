"""Measure the programs of answers against their baselines, each pair once."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from diffopt.bench import device
from diffopt.bench.environment import allowed, cpus_for, needed_to_run
from diffopt.bench.evaluate import Evaluator, Measured, Outcome, Program
from diffopt.bench.forkserver import ForkServer
from diffopt.bench.models import builtin
from diffopt.bench.suite.families import FAMILIES
from diffopt.bench.suite.harness import measured_text
from diffopt.bench.suite.store import MeasurementStore
from diffopt.bench.workload import Workload

Group = tuple[str, str]
"""A model, and the baseline of it that programs are raced against."""

ROUND = 6
"""Programs of a group that are measured before the next group's turn."""


@dataclass(frozen=True)
class Protocol:
    """On what terms programs are measured; part of every key.

    Args:
        prompts: held-out ones.
        pairs: fewest and most timed pairs where no speed is asked for.
        aimed_pairs: likewise, where one is.
        seed: of prompts, of their seeds, and of the order of pairs.
        split: whose prompts: those that judge, or those that a search may see.
    """

    prompts: int = 10
    pairs: tuple[int, int] = (3, 3)
    aimed_pairs: tuple[int, int] = (8, 16)
    seed: int = 0
    target: str = "cpu"
    threads: int | None = None
    split: Literal["heldout", "search"] = "heldout"

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}


@dataclass(frozen=True)
class Job:
    """A program of a family, and the baseline it is raced against; both are answers' texts, as written.

    aimed: whether its speed decides.
    """

    family: str
    baseline: str
    code: str
    aimed: bool = False

    def key(self, protocol: Protocol) -> str:
        """Return the name of its measurement: equal on equal terms, machine and versions."""
        model = FAMILIES[self.family].model
        pairs = protocol.aimed_pairs if self.aimed else protocol.pairs
        terms = [model, self.baseline, self.code, protocol.prompts, list(pairs), protocol.seed, protocol.target,
                 protocol.threads, device.versions(), _machine()]  # fmt: skip
        if protocol.split != "heldout":
            terms.append(protocol.split)
        return hashlib.sha256(json.dumps(terms, sort_keys=True).encode()).hexdigest()[:20]


def measure(
    jobs: Iterable[Job],
    store: MeasurementStore,
    *,
    protocol: Protocol,
    work: Path,
    seconds: float | None = None,
    environment: Mapping[str, str] = os.environ,
    listen: Callable[[str], None] = lambda text: None,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Measure what is not in the store yet; return how many are left.

    Args:
        seconds: start no measurement after these.
        work: a folder for this; candidates run in it and what they leave is removed.

    Raises:
        DiffoptError: a baseline does not run, or the disk is full.
    """
    groups = _missing(jobs, store, protocol)
    left = sum(map(len, groups.values()))
    if not left:
        return 0
    end = clock() + (float("inf") if seconds is None else seconds)
    with fork_server(work, protocol, environment) as server:
        for (model, baseline), wanted in _rounds(groups):
            if clock() >= end:
                return left
            folder = folder_of(work, model, baseline)
            with evaluator_of(model, baseline, folder, protocol, server) as evaluator:
                for key, job in wanted:
                    if clock() >= end:
                        break
                    started = clock()
                    store.add(key, measured(evaluator, job, protocol))
                    left -= 1
                    listen(f"{job.family}: {clock() - started:.0f} s, {left} left")
            shutil.rmtree(folder / "candidates", ignore_errors=True)
            shutil.rmtree(folder / "images", ignore_errors=True)
    return left


def fork_server(work: Path, protocol: Protocol, environment: Mapping[str, str] = os.environ) -> ForkServer:
    """Return a fork server for programs of every baseline; a context manager."""
    seen = allowed(environment, home=Path(environment.get("HOME", "/")), threads=protocol.threads, offline=True)
    cpus = cpus_for(seen, os.sched_getaffinity(0), protocol.threads)
    return ForkServer(work.resolve(), environment=seen, cpus=cpus)


def folder_of(work: Path, model: str, baseline: str) -> Path:
    """Return the folder of a baseline's evaluator."""
    return work / hashlib.sha256(f"{model} {baseline}".encode()).hexdigest()[:12]


def _rounds(groups: Mapping[Group, Mapping[str, Job]]) -> Iterator[tuple[Group, list[tuple[str, Job]]]]:
    """Yield a few jobs of each group, then a few more, so that a run cut short has seen every model."""
    for start in range(0, max(map(len, groups.values())), ROUND):
        for group, jobs in groups.items():
            some = list(jobs.items())[start : start + ROUND]
            if some:
                yield group, some


def _missing(jobs: Iterable[Job], store: MeasurementStore, protocol: Protocol) -> dict[tuple[str, str], dict[str, Job]]:
    """Return what is not measured yet by model and baseline, what most tasks wait for first."""
    asked: Counter[Job] = Counter(jobs)
    groups: dict[Group, dict[str, Job]] = defaultdict(dict)
    weights: Counter[Group] = Counter()
    for job, count in asked.most_common():
        key, group = job.key(protocol), (FAMILIES[job.family].model, job.baseline)
        if store.get(key) is None:
            groups[group].setdefault(key, job)
            weights[group] += count
    return {group: groups[group] for group, _ in weights.most_common()}


def evaluator_of(model: str, baseline: str, folder: Path, protocol: Protocol, server: ForkServer) -> Evaluator:
    """Return what measures programs against a baseline; a context manager.

    Its held-out prompts are those of the protocol's split: their images are kept, which is how adherence is read.
    """
    found = builtin(model)
    if found is None:
        raise AssertionError(f"{model} has no weights, and nothing of it is measured")
    prompts = found.prompts(protocol.split, protocol.prompts, protocol.seed)
    search = found.prompts("search" if protocol.split == "heldout" else "calibration", 4, protocol.seed)
    work = Workload(tuple(search), tuple(prompts), protocol.seed, found.height, found.width)
    evaluator = Evaluator(
        Program("the baseline", measured_text(baseline)),
        work,
        work=folder,
        engines=folder / "engines",
        device=protocol.target,
        scorer=found.scorer(),
        seed=protocol.seed,
        model=str(found.directory),
        threads=protocol.threads,
        server=server,
    )
    # An answer is anybody's code, and what it read could be told by its images.
    evaluator.place.readable = needed_to_run(found.directory)
    return evaluator


def measured(evaluator: Evaluator, job: Job, protocol: Protocol) -> dict[str, Any]:
    """Measure a program; return the record that a store keeps."""
    program = Program("an answer", measured_text(job.code))
    pairs = protocol.aimed_pairs if job.aimed else protocol.pairs
    outcome = evaluator.evaluate(program, split="heldout", pairs=pairs)
    model = FAMILIES[job.family].model
    return {"outcome": outcome.to_json(), "adherence": adherence(evaluator.images_of(program), model, outcome)}


def adherence(folder: Path, model: str, outcome: Outcome) -> dict[str, list[float]] | None:
    """Return the share of its prompt that each image of a folder shows, the baseline's and the answer's; None of none."""
    if not isinstance(outcome, Measured):
        return None
    from PIL import Image

    found = builtin(model)
    assert found is not None
    scorer = found.scorer()
    entries = json.loads((folder / "images.json").read_text())["images"]
    prompts = [entry["prompt"] for entry in entries]

    def shares(side: str) -> list[float]:
        images = [np.asarray(Image.open(folder / entry[side]), dtype=np.float32) / 255 for entry in entries]
        return [round(float(value), 4) for value in scorer.attributes_correct(np.stack(images), prompts)]

    return {"baseline": shares("baseline"), "candidate": shares("candidate")}


def _machine() -> object:
    return {
        name: value for name, value in device.devices(accelerators=False)[0].items() if name in ("name", "features")
    }
