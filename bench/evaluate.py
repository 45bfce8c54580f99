"""The only path to a number: run an emitted pipeline in a process of its own and compare it with the baseline."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, TypeVar

import numpy as np

from diffopt.bench import device, images, memory, teacher
from diffopt.bench.contestant import Contestant
from diffopt.bench.disk import clear, empty_folder, free_bytes, make_folder, write_text
from diffopt.bench.energy import meter
from diffopt.bench.environment import allowed, cpus_for, worker_confinement, worker_environment
from diffopt.bench.faults import baseline_error, check_disk
from diffopt.bench.features import FeatureNetwork
from diffopt.bench.fidelity import Distances, Scorer, compare, timed_psnr, worst_frame_psnr
from diffopt.bench.forkserver import ForkServer
from diffopt.bench.idle import IdleWatch
from diffopt.bench.latency import Race, Timing, race, warm_up
from diffopt.bench.likeness import unlike
from diffopt.bench.outcome import Failed, Fidelity, Latency, Measured, Memory, Outcome, outcome_from_json
from diffopt.bench.references import References, in_batches, references
from diffopt.bench.resident import Died, Images, Resident
from diffopt.bench.statistics import median
from diffopt.bench.tiers import Thresholds
from diffopt.bench.workload import Workload
from diffopt.ir.errors import DiffoptError

__all__ = [
    "Evaluator", "Failed", "Fidelity", "Latency", "Measured", "Memory", "Outcome", "Program", "Scorer", "Split",
    "Thresholds", "outcome_from_json",
]  # fmt: skip

Split = Literal["search", "heldout"]
Progress = Callable[[str, int, int], None]
_T = TypeVar("_T")

_FEW = 4
_LESSON_S = 120.0
_FORGED_DB, _SECOND_LOOK = 1.0, 16
"""Timed calls have other seeds than untimed ones, so their median may lie so far below the untimed worst tenth."""


@dataclass(frozen=True)
class Program:
    """An emitted pipeline: a name for people, the text of its pipeline.py, and who forks its workers if not the run's server."""

    name: str
    pipeline_py: str
    server: ForkServer | None = None

    @property
    def hash(self) -> str:
        """Return the name of its folder: 16 hexadecimal digits of its text."""
        return hashlib.sha256(self.pipeline_py.encode()).hexdigest()[:16]


class Evaluator:
    """Measures programs against one baseline; a context manager with a fork server and a baseline worker inside.

    One owner, one thread. Every program runs in a fresh process; whatever it does, `evaluate` returns an outcome and
    the next evaluation works. A baseline that stops working is started again once, then it is the user's error.
    `timeout_s`, `memory_limit`, `disk_limit` (bytes a program may write; 80 % of what is free if None) and `readable`
    (what programs other than the baseline may read) may be changed between evaluations.

    Args:
        baseline: the user's pipeline as it was.
        workload: prompts and sizes.
        work: folder of this run: candidates/, images/, references/, logs; engines: shared by all programs of the run.
        scorer: for prompt accuracy and features, or None; network: for features where there is no scorer;
            perceptual: distances of pairs, told beside the rest.
        thresholds: the tiers.
        seed: of the order of pairs and the bootstrap.
        timeout_s: for loading with all building, and for a first call; later ones get 20 times the baseline's, 60 s or more.
        model: overrides the model named in the programs. weights: hash of the model's files; reference images of others are not used again.
        threads: OpenMP threads and cores of every worker; None for what the user's own script would have. memory_limit: bytes
            of resident memory of a program's processes; None for 80 % of what is available.
        environment: the user's; workers see an allow-listed part. offline: forbid the hub, and all network.
        hidden: folders that no program may read, beside `work` (the store's).
        reference_batch: baseline images a call, where that changes nothing. secret: seed of timed calls; None to draw one.
        progress: told what goes on: a stage, how many are done, of how many; server: a fork server to use instead of one
            of its own, with the environment it was given; it is not closed.
    """

    def __init__(
        self,
        baseline: Program,
        workload: Workload,
        *,
        work: Path,
        engines: Path,
        device: str = "cpu",
        scorer: Scorer | None = None,
        network: FeatureNetwork | None = None,
        perceptual: Distances | None = None,
        thresholds: Thresholds = Thresholds(),  # noqa: B008 - frozen
        seed: int = 0,
        timeout_s: float = 600.0,
        model: str | None = None,
        weights: str = "",
        threads: int | None = None,
        memory_limit: int | None = None,
        environment: Mapping[str, str] = os.environ,
        offline: bool = True,
        hidden: Sequence[Path] = (),
        reference_batch: int = 8,
        secret: int | None = None,
        progress: Progress = lambda stage, done, total: None,
        server: ForkServer | None = None,
    ) -> None:
        self.baseline, self.workload, self.thresholds = baseline, workload, thresholds
        self.image_folder = work.resolve() / "images"
        self._work, self._engines, self._device, self._scorer = work.resolve(), engines.resolve(), device, scorer
        self._model, self._weights, self._reference_batch = model, weights, reference_batch
        self._network, self._perceptual, self.timeout_s = network, perceptual, timeout_s
        self.memory_limit = memory_limit or memory.available_bytes() * 8 // 10
        self._rng = np.random.default_rng(seed)
        self._secret = np.random.default_rng(secrets.randbits(128) if secret is None else secret)
        self._progress = progress
        self._home, self._offline = Path(environment.get("HOME", "/")), offline
        self._hidden = (self._work, *(path.resolve() for path in hidden))
        self.disk_limit: int | None = None
        self.walls = True
        self.readable: tuple[str, ...] = ("/",)
        self._energy = meter(device)
        self._own_server = server is None
        self._server = server or self._new_server(environment, threads, offline)
        self._resident: Contestant | None = None
        self._usual_s: list[float] = []
        self._references: dict[str, References] = {}
        self._lessons: dict[str, teacher.Lesson] = {}

    def __enter__(self) -> Self:
        for folder in (self._work, self._engines):
            make_folder(folder)
        try:
            self._baseline()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._resident:
            self._resident.resident.close()
        if self._own_server:
            self._server.close()

    def evaluate(
        self,
        program: Program,
        *,
        split: Split = "search",
        pairs: tuple[int, int] = (5, 30),
        threshold: float | None = None,
        any_image: bool = False,
        rest_s: float = 0.0,
    ) -> Outcome:
        """Measure a program.

        The cascade stops at the first thing that is wrong: load, one image and its repetition, a few images, all
        images of the split, then timed pairs.

        Args:
            split: whose prompts; "heldout" also writes the images, see `images_of`.
            pairs: the fewest and the most timed pairs.
            threshold, rest_s: see `latency.Timing`.
            any_image: go on where images are unlike the baseline's: a control arm is worth its figures all the same.

        Raises:
            DiffoptError: the baseline does not run, or the disk is full.
        """
        timing = Timing(pairs, threshold, rest_s)
        return self._run(program, lambda candidate: self._measure(candidate, program, split, timing, any_image))

    def self_test(self, *, pairs: tuple[int, int] = (10, 15)) -> Latency:
        """Race the baseline against itself; half the interval's width is what this machine can tell apart now.

        Raises:
            DiffoptError: the baseline does not run.
        """
        found = self._run(self.baseline, lambda candidate: self._race(candidate, "search", Timing(pairs)).latency)
        if isinstance(found, Failed):
            raise baseline_error(self.baseline.name, found)
        return found

    def observe(self, program: Program, *, split: Split = "search") -> tuple[teacher.Lesson, teacher.Arrays] | Failed:
        """Return the baseline's denoiser calls for one prompt and the program's on the same latents, with their layers."""

        def work(candidate: Contestant) -> tuple[teacher.Lesson, teacher.Arrays]:
            known, folder = self._reference(split), self._work / "candidates" / program.hash
            asked = (known.prompts[: self.workload.batch], known.seeds[: self.workload.batch])
            lesson = teacher.lesson(
                self._baseline().resident, self._work / "baseline", *asked, deadline_s=_LESSON_S, layers=True
            )
            return lesson, teacher.answers(candidate.resident, folder, lesson, deadline_s=_LESSON_S, layers=True)

        return self._run(program, work)

    def images_of(self, program: Program) -> Path:
        """Return where the held-out evaluation of a program writes its images, and images.json that lists them."""
        return self.image_folder / program.hash

    def _measure(
        self, candidate: Contestant, program: Program, split: Split, timing: Timing, any_image: bool
    ) -> Outcome:
        known = self._reference(split)
        first, again = (candidate.images(known.prompts[:1], known.seeds[:1]) for _ in range(2))
        witnesses = candidate.witnesses()  # after the second request: what remembers does nothing in the first
        if worst_frame_psnr(again, first, self.workload.frames)[0] < self.thresholds.near_psnr_median:
            candidate.refuse("the same prompt and seed give another image the second time")
        made = self._images(candidate, known, any_image)
        fidelity = compare(
            made, known.images, known.others,
            prompts=known.prompts, seeds=known.seeds, scorer=self._scorer, network=self._network,
            rng=np.random.default_rng(0), frames=self.workload.frames, perceptual=self._perceptual,
        )  # fmt: skip
        fidelity = self._taught(candidate, program, split, fidelity)
        raced = self._race(candidate, split, timing)
        lowest = fidelity.psnr_p10 - _FORGED_DB
        timed = timed_psnr(raced.images, self.workload.frames)
        if timed < lowest and not any_image:  # of few timed images the median may lie low by chance: more are looked at
            again_raced = self._race(candidate, split, Timing((_SECOND_LOOK, _SECOND_LOOK)))
            timed = timed_psnr(again_raced.images, self.workload.frames)
        if timed < lowest and not any_image:
            usual = f"{timed:.1f} dB, untimed ones {fidelity.psnr_p10:.1f} in the worst tenth"
            return Failed("protocol", f"timed calls gave images at {usual}")
        if split == "heldout":
            images.save_pairs(self.images_of(program), made, known, fidelity.psnr, frames=self.workload.frames)
        baseline = self._baseline()
        return Measured(
            latency=raced.latency,
            fidelity=fidelity,
            memory=Memory(candidate.resident.peak_bytes, baseline.resident.peak_bytes),
            build_s=max(0.0, candidate.load_s - baseline.load_s),
            load_s=candidate.load_s,
            first_call_s=candidate.first_call_s,
            witnesses=witnesses,
            tier=self.thresholds.tier(fidelity),
            environment=device.environment() | self._conditions(candidate),
            deterministic=bool(np.array_equal(again, first)),
        )

    def _conditions(self, candidate: Contestant) -> dict[str, object]:
        return {
            "device": self._device, "threads": candidate.threads, "guards": list(candidate.guards),
            "batch": self.workload.batch, "energy": self._energy.reason or self._energy.name,
        }  # fmt: skip

    def _images(self, candidate: Contestant, known: References, any_image: bool) -> Images:
        made: list[Images] = []
        batch, total = self.workload.batch, len(known.prompts)
        for start in range(0, total, batch):
            self._progress("images", start, total)
            made.append(candidate.images(known.prompts[start : start + batch], known.seeds[start : start + batch]))
            if start < _FEW <= start + batch and not any_image:
                wrong = unlike(np.concatenate(made), known, self._scorer)
                if wrong:
                    candidate.refuse(wrong)
        together = np.concatenate(made)
        if images.repeats(together):
            candidate.refuse("different prompts and seeds give the same image")
        return together

    def _taught(self, candidate: Contestant, program: Program, split: Split, fidelity: Fidelity) -> Fidelity:
        """Add the teacher-forced error of the denoiser, where the images are near enough for it to decide anything."""
        if self.thresholds.tier(fidelity) not in ("exact", "near"):
            return fidelity
        deadline_s = _LESSON_S + 20 * candidate.first_call_s
        if split not in self._lessons:
            known, count = self._reference(split), self.workload.batch
            resident = self._baseline().resident
            self._lessons[split] = teacher.lesson(
                resident, self._work / "baseline", known.prompts[:count], known.seeds[:count], deadline_s=deadline_s
            )
        lesson, folder = self._lessons[split], self._work / "candidates" / program.hash
        given = teacher.answers(candidate.resident, folder, lesson, deadline_s=deadline_s)
        errors = teacher.step_errors(lesson, given)
        return dataclasses.replace(
            fidelity, denoiser_error=max(errors) if errors else None, denoiser_dtype=lesson.dtype
        )

    def _race(self, candidate: Contestant, split: Split, timing: Timing) -> Race:
        baseline, draw = self._baseline(), self.workload.draws(split, self._secret)
        warm_up(candidate, draw, fewest=3)
        warm_up(baseline, draw, fewest=1)
        idle = IdleWatch(candidate.resident.members, candidate.resident.reaper)
        raced = race(
            idle.during(baseline), candidate, draw,
            rng=self._rng, timing=timing, usual_s=median(self._usual_s) if self._usual_s else None,
            energy=self._energy, progress=lambda done: self._progress("pairs", done, timing.pairs[1]),
        )  # fmt: skip
        worked = idle.fault()
        if worked:
            raise Died(candidate.resident, Failed("protocol", worked))
        self._usual_s += raced.latency.baseline_s
        return raced

    def _reference(self, split: Split) -> References:
        if split not in self._references:
            versions = json.dumps(device.versions(), sort_keys=True)
            identity = [self.baseline.pipeline_py, str(self._model), self._weights, self._device, versions]
            self._references[split] = references(
                self.workload, split, folder=self._work / "references", identity=identity, make=self._make_references
            )
        return self._references[split]

    def _make_references(self, prompts: Sequence[str], seeds: Sequence[int]) -> Images:
        # In a worker apart: batches would raise the memory peak that is reported for the baseline.
        def run(reference: Contestant) -> Images:
            return in_batches(
                lambda prompts, seeds: reference(prompts, seeds)[1], prompts, seeds, size=self._reference_batch,
                report=lambda done: self._progress("reference images", done, len(prompts)),
            )  # fmt: skip

        made = self._guarded(self.baseline, run)
        if isinstance(made, Failed):
            raise baseline_error(self.baseline.name, made)
        if images.repeats(made):
            message = "the pipeline gives the same image for different prompts and seeds"
            raise DiffoptError(message, where=self.baseline.name, hint="nothing can be measured on it")
        return made

    def _run(self, program: Program, work: Callable[[Contestant], _T]) -> _T | Failed:
        """Work with a program; start again, once, when it was the baseline that died."""
        try:
            self._baseline()
            return self._guarded(program, work)
        except Died:
            try:
                return self._guarded(program, work)
            except Died as died:
                raise baseline_error(self.baseline.name, died.failed) from died

    def _guarded(self, program: Program, work: Callable[[Contestant], _T]) -> _T | Failed:
        """Work with a program in a fresh process; its failures are values, the baseline's are not."""
        candidate = self._spawn(program, self._work / "candidates" / program.hash)
        try:
            self._load(candidate, program)
            return work(candidate)
        except Died as died:
            if died.resident is not candidate.resident:
                raise
            if died.failed.kind == "disk":
                empty_folder(self._work / "candidates" / program.hash, frozenset({"pipeline.py", "worker.log"}))
            check_disk(self._engines, self._work)
            return died.failed
        finally:
            candidate.resident.close()

    def _baseline(self) -> Contestant:
        """Return the baseline's worker, a new one if the last has died."""
        if self._resident and self._resident.resident.alive:
            return self._resident
        if self._resident:
            self._resident.resident.close()
        self._resident = self._spawn(self.baseline, self._work / "baseline")
        try:
            self._load(self._resident, self.baseline)
            self._usual_s += warm_up(self._resident, self.workload.draws("search", self._secret), fewest=3)[1:]
            self.workload = dataclasses.replace(self.workload, frames=self._resident.frames)
        except Died as died:
            if self.walls and not self._usual_s and died.failed.kind in ("build", "crash"):
                self.walls = False  # the user's own pipeline needs what the walls forbid; outcomes tell the guards
                self._resident.resident.close()  # it may live on, without a pipeline
                return self._baseline()
            raise baseline_error(self.baseline.name, died.failed) from died
        return self._resident

    def _new_server(self, environment: Mapping[str, str], threads: int | None, offline: bool) -> ForkServer:
        seen = allowed(environment, home=Path(environment.get("HOME", "/")), threads=threads, offline=offline)
        return ForkServer(self._work, environment=seen, cpus=cpus_for(seen, os.sched_getaffinity(0), threads))

    def _spawn(self, program: Program, folder: Path) -> Contestant:
        own = make_folder(self._work / "candidates" / program.hash)
        resident = Resident(
            program.server or self._server, program.name, folder,
            environment=worker_environment(folder, self._engines), memory_limit=self.memory_limit,
            disk_limit=self.disk_limit or free_bytes(own) * 8 // 10,
            confinement=worker_confinement(
                folder, own, self._engines, home=self._home, hidden=self._hidden, offline=self._offline,
                walls=self.walls, readable=("/",) if program is self.baseline else self.readable,
            ),
        )  # fmt: skip
        return Contestant(resident, self.workload, timeout_s=self.timeout_s, usual_s=median(self._usual_s or [0.0]))

    def _load(self, contestant: Contestant, program: Program) -> None:
        self._progress("load", 0, 1)
        path = make_folder(self._work / "candidates" / program.hash) / "pipeline.py"
        clear(path)
        write_text(path, program.pipeline_py)
        contestant.load(path, model=self._model, device=self._device, engines=self._engines)
