"""The only path to a number: run an emitted pipeline in a process of its own and compare it with the baseline."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Self

import numpy as np

from diffopt.bench import device, images, teacher
from diffopt.bench.contestant import Contestant
from diffopt.bench.energy import meter
from diffopt.bench.environment import allowed, cpus_for
from diffopt.bench.faults import baseline_error
from diffopt.bench.features import FeatureNetwork
from diffopt.bench.fidelity import Distances, Scorer, compare, timed_psnr, worst_frame_psnr
from diffopt.bench.forkserver import ForkServer
from diffopt.bench.idle import IdleWatch
from diffopt.bench.latency import Race, Timing, race, warm_up
from diffopt.bench.likeness import unlike
from diffopt.bench.outcome import Failed, Fidelity, Latency, Measured, Memory, Outcome, outcome_from_json
from diffopt.bench.references import References, in_batches, references
from diffopt.bench.resident import Died, Images
from diffopt.bench.statistics import median
from diffopt.bench.tiers import Thresholds
from diffopt.bench.workload import Workload
from diffopt.bench.workplace import Program, Progress, Workplace
from diffopt.ir.errors import DiffoptError

__all__ = [
    "Evaluator", "Failed", "Fidelity", "Latency", "Measured", "Memory", "Outcome", "Program", "Scorer", "Split",
    "Thresholds", "outcome_from_json",
]  # fmt: skip

Split = Literal["search", "heldout"]

_FEW = 4
_LESSON_S = 120.0
_FORGED_DB, _SECOND_LOOK = 1.0, 16
"""Timed calls have other seeds than untimed ones, so their median may lie so far below the untimed worst tenth."""


class Evaluator:
    """Measures programs against one baseline; a context manager with a fork server and a baseline worker inside.

    One owner, one thread. Every program runs in a fresh process; whatever it does, `evaluate` returns an outcome and
    the next evaluation works. A baseline that stops working is started again once, then it is the user's error.
    What `place` allows (see `Workplace`) may be changed between evaluations.

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
        self._own_server = server is None
        self.place = Workplace(
            baseline, workload, server or _new_server(work.resolve(), environment, threads, offline),
            work=work.resolve(), engines=engines.resolve(), device=device, model=model,
            home=Path(environment.get("HOME", "/")), offline=offline, hidden=hidden, timeout_s=timeout_s,
            memory_limit=memory_limit, secret=secret, progress=progress,
        )  # fmt: skip
        self.thresholds, self.image_folder = thresholds, self.place.work / "images"
        self._scorer, self._network, self._perceptual = scorer, network, perceptual
        self._weights, self._reference_batch = weights, reference_batch
        self._rng = np.random.default_rng(seed)
        self._progress = progress
        self._energy = meter(device)
        self._references: dict[str, References] = {}
        self._lessons: dict[str, teacher.Lesson] = {}

    def __enter__(self) -> Self:
        try:
            self.place.open()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.place.close()
        if self._own_server:
            self.place.server.close()

    @property
    def baseline(self) -> Program:
        """The user's pipeline as it was."""
        return self.place.program

    @property
    def workload(self) -> Workload:
        """Prompts and sizes; of a video, the frames, once the baseline has run."""
        return self.place.workload

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
        return self.place.run(program, lambda candidate: self._measure(candidate, program, split, timing, any_image))

    def self_test(self, *, pairs: tuple[int, int] = (10, 15)) -> Latency:
        """Race the baseline against itself; half the interval's width is what this machine can tell apart now.

        Raises:
            DiffoptError: the baseline does not run.
        """
        found = self.place.run(self.baseline, lambda candidate: self._race(candidate, "search", Timing(pairs)).latency)
        if isinstance(found, Failed):
            raise baseline_error(self.baseline.name, found)
        return found

    def observe(self, program: Program, *, split: Split = "search") -> tuple[teacher.Lesson, teacher.Arrays] | Failed:
        """Return the baseline's denoiser calls for one prompt and the program's on the same latents, with their layers."""

        def work(candidate: Contestant) -> tuple[teacher.Lesson, teacher.Arrays]:
            known, folder = self._reference(split), self.place.work / "candidates" / program.hash
            asked = (known.prompts[: self.workload.batch], known.seeds[: self.workload.batch])
            lesson = teacher.lesson(
                self.place.baseline().resident, self.place.work / "baseline", *asked, deadline_s=_LESSON_S, layers=True
            )
            return lesson, teacher.answers(candidate.resident, folder, lesson, deadline_s=_LESSON_S, layers=True)

        return self.place.run(program, work)

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
        baseline = self.place.baseline()
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
            "device": self.place.device, "threads": candidate.threads, "guards": list(candidate.guards),
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
            resident = self.place.baseline().resident
            self._lessons[split] = teacher.lesson(
                resident,
                self.place.work / "baseline",
                known.prompts[:count],
                known.seeds[:count],
                deadline_s=deadline_s,
            )
        lesson, folder = self._lessons[split], self.place.work / "candidates" / program.hash
        given = teacher.answers(candidate.resident, folder, lesson, deadline_s=deadline_s)
        errors = teacher.step_errors(lesson, given)
        return dataclasses.replace(
            fidelity, denoiser_error=max(errors) if errors else None, denoiser_dtype=lesson.dtype
        )

    def _race(self, candidate: Contestant, split: Split, timing: Timing) -> Race:
        baseline, draw = self.place.baseline(), self.workload.draws(split, self.place.secret)
        warm_up(candidate, draw, fewest=3)
        warm_up(baseline, draw, fewest=1)
        idle = IdleWatch(candidate.resident.members, candidate.resident.reaper)
        raced = race(
            idle.during(baseline), candidate, draw,
            rng=self._rng, timing=timing, usual_s=median(self.place.usual_s) if self.place.usual_s else None,
            energy=self._energy, progress=lambda done: self._progress("pairs", done, timing.pairs[1]),
        )  # fmt: skip
        worked = idle.fault()
        if worked:
            raise Died(candidate.resident, Failed("protocol", worked))
        self.place.usual_s += raced.latency.baseline_s
        return raced

    def _reference(self, split: Split) -> References:
        if split not in self._references:
            versions = json.dumps(device.versions(), sort_keys=True)
            identity = [self.baseline.pipeline_py, str(self.place.model), self._weights, self.place.device, versions]
            self._references[split] = references(
                self.workload,
                split,
                folder=self.place.work / "references",
                identity=identity,
                make=self._make_references,
            )
        return self._references[split]

    def _make_references(self, prompts: Sequence[str], seeds: Sequence[int]) -> Images:
        # In a worker apart: batches would raise the memory peak that is reported for the baseline.
        def run(reference: Contestant) -> Images:
            return in_batches(
                lambda prompts, seeds: reference(prompts, seeds)[1], prompts, seeds, size=self._reference_batch,
                report=lambda done: self._progress("reference images", done, len(prompts)),
            )  # fmt: skip

        made = self.place.guarded(self.baseline, run)
        if isinstance(made, Failed):
            raise baseline_error(self.baseline.name, made)
        if images.repeats(made):
            message = "the pipeline gives the same image for different prompts and seeds"
            raise DiffoptError(message, where=self.baseline.name, hint="nothing can be measured on it")
        return made


def _new_server(work: Path, environment: Mapping[str, str], threads: int | None, offline: bool) -> ForkServer:
    seen = allowed(environment, home=Path(environment.get("HOME", "/")), threads=threads, offline=offline)
    return ForkServer(work, environment=seen, cpus=cpus_for(seen, os.sched_getaffinity(0), threads))
