"""What runs have taught, kept across models in one file of JSON lines: a program, on what, and what came of it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from diffopt.bench.disk import make_folder, writing
from diffopt.bench.outcome import Failed, Measured
from diffopt.llm.answer import one_line
from diffopt.llm.feedback import Trial

FORMAT: Final = 1
KEPT: Final = 2000
"""Lessons read at most, the newest."""


@checked_dataclass(frozen=True)
class Lesson:
    """One measured or failed program of a run."""

    format: int
    pipeline: str
    denoiser: str
    architecture: str
    device: str
    trace: str
    said: str  # figures with their interval, or the failure
    origin: str  # the run, and the number of the trial

    def __str__(self) -> str:
        name = self.denoiser.rpartition(".")[2]
        return one_line(f"on {name}, {self.device}: {self.trace} | {self.said} [{self.origin}]", 500)

    @staticmethod
    def parse(line: str) -> Lesson | None:
        """Read a line; `None` where it is no lesson of this format."""
        try:
            found = _LESSON.validate_json(line)
        except ValidationError:
            return None
        return found if found.format == FORMAT else None


_LESSON: TypeAdapter[Lesson] = TypeAdapter(Lesson)


def lessons_of(
    trials: Sequence[Trial],
    *,
    pipeline: str,
    denoiser: str,
    architecture: str,
    device: str,
    origin: str,
    most: int = 12,
) -> list[Lesson]:
    """Return what a run teaches: its fastest programs of each tier, and the kinds of failure it met, once each."""
    measured = [(n, t, t.outcome) for n, t in enumerate(trials, 1) if isinstance(t.outcome, Measured)]
    failed = [(n, t, t.outcome) for n, t in enumerate(trials, 1) if isinstance(t.outcome, Failed)]
    told: list[tuple[int, str, str]] = []
    for tier in dict.fromkeys(outcome.tier for _, _, outcome in measured):
        best = max((item for item in measured if item[2].tier == tier), key=lambda item: item[2].latency.ratio)
        latency, fidelity = best[2].latency, best[2].fidelity
        said = (
            f"{latency.ratio:.2f}x [{latency.lo:.2f}, {latency.hi:.2f}], median {fidelity.psnr_median:.1f} dB, {tier}"
        )
        told.append((best[0], best[1].candidate.trace, said))
    kinds: dict[str, tuple[int, str, str]] = {}
    for number, trial, outcome in failed:
        said = f"{outcome.kind}: {one_line(outcome.message, 160)}"
        kinds.setdefault(said, (number, trial.candidate.trace, said))
    return [
        Lesson(FORMAT, pipeline, denoiser, architecture, device, trace, said, f"{origin}, trial {number}")
        for number, trace, said in [*told, *kinds.values()][:most]
    ]


def read(path: Path) -> tuple[Lesson, ...]:
    """Return the lessons in a file, oldest first; none where there is no file. A line torn by a kill is left out."""
    if not path.is_file():
        return ()
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-KEPT:]
    return tuple(found for line in lines if (found := Lesson.parse(line)) is not None)


def add(path: Path, lessons: Iterable[Lesson]) -> None:
    """Append lessons, each in one piece.

    Raises:
        DiffoptError: the file cannot be written.
    """
    text = "".join(json.dumps(dataclasses.asdict(lesson), ensure_ascii=False) + "\n" for lesson in lessons)
    make_folder(path.parent)
    with writing(path), path.open("ab") as file:
        file.write(text.encode())
