"""The file that holds an arm's answers and what was measured of them: the leaderboard's format, and raw samples."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from diffopt.bench.disk import write_bytes
from diffopt.bench.suite import task as suite_task
from diffopt.bench.suite.task import Task
from diffopt.ir.errors import DiffoptError

FORMAT = "diffbench-results"
VERSION = 1
WRITTEN = "give a file that `diffopt bench run` wrote"
LARGEST = 256 << 20
"""Most bytes of a file of results, unpacked; all 604 tasks take a few MiB."""

_DIGITS = 40


@dataclass(frozen=True)
class Results:
    """What an arm handed in, and what was found.

    Args:
        seed: of the tasks; 0 for the public ones.
        machine: `device.devices()` and versions of the libraries.
        protocol: on what terms programs were measured.
        programs: texts of answers and baselines by `text_hash`.
        measurements: records by the hashes of baseline and answer, `family baseline answer`.
        targets: a search's best of a baseline, by its hash: `speedup`, `latency_s`; none where no search was run.
        answers: for each task its answer's hash, or why there is none.
        verdicts: for each task what `judging.judge` says.
    """

    arm: str
    seed: int
    machine: Mapping[str, Any]
    protocol: Mapping[str, Any]
    programs: Mapping[str, str] = field(default_factory=dict)
    measurements: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    targets: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    answers: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    verdicts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    suite: int = suite_task.VERSION

    def code(self, task: Task) -> str:
        """Return the text that answers a task; empty where nothing does."""
        return self.programs.get(self.answers.get(task.id, {}).get("program", ""), "")

    def measurement(self, task: Task, baseline: str) -> Mapping[str, Any] | None:
        """Return what was measured of the answer to a task, against its baseline's text."""
        return self.measurements.get(pair_name(task.family, baseline, self.code(task)))

    def with_verdicts(self, verdicts: Mapping[str, Mapping[str, Any]]) -> Results:
        """Return the same with other verdicts."""
        return replace(self, verdicts=dict(verdicts))


def text_hash(text: str) -> str:
    """Return the name of a program's text: 16 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def pair_name(family: str, baseline: str, code: str) -> str:
    """Return the name of a measurement in a file of results."""
    return f"{family} {text_hash(baseline)} {text_hash(code)}"


def write_results(path: Path, results: Results) -> None:
    """Write results as JSON, compressed where the name ends in .gz; equal results are equal bytes."""
    data = {"format": FORMAT, "version": VERSION, **vars(results)}
    text = (json.dumps(data, sort_keys=True, indent=None, separators=(",", ":")) + "\n").encode()
    write_bytes(path, gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)


def read_results(path: Path) -> Results:
    """Read what `write_results` wrote.

    Raises:
        DiffoptError: it cannot be read, or is no such file, or of another version.
    """
    return results_of(read_json(path), path)


def read_json(path: Path) -> object:
    """Read a JSON file of DiffBench, compressed where its name ends in .gz.

    Raises:
        DiffoptError: it cannot be read, is too large, or holds no numbers where numbers are to be.
    """
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise DiffoptError(f"results of more than {LARGEST >> 20} MiB", str(path), "hand in fewer tasks a file")
        found = json.loads(data, parse_constant=_number, parse_float=_number, parse_int=_whole)
        json.dumps(found, ensure_ascii=False).encode()
    except OSError as error:
        # gzip's own complaints are OSErrors without a number.
        raise DiffoptError(f"cannot be read: {error.strerror or 'no gzip file'}", str(path)) from None
    except (ValueError, EOFError, RecursionError, zlib.error) as error:
        raise DiffoptError(f"no results of DiffBench: {error}", str(path), WRITTEN) from None
    return found


def _number(text: str) -> float:
    """Read a number of JSON; a measured one is finite."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no number that was measured")
    return value


def _whole(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def results_of(found: object, path: Path) -> Results:
    """Take results from JSON data.

    Raises:
        DiffoptError: they are none, or of another version.
    """
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise DiffoptError("no results of DiffBench", str(path), WRITTEN)
    if found.get("version") != VERSION:
        raise DiffoptError(f"of version {found.get('version')!r}, this program reads {VERSION}", str(path))
    if found.get("suite") != suite_task.VERSION:
        what = f"of version {found.get('suite')!r} of the suite, this program has {suite_task.VERSION}"
        raise DiffoptError(what, str(path), "run it again")
    kinds: dict[str, type] = {name: dict for name in ("machine", "protocol", *_TABLES)} | {"arm": str, "seed": int}
    for name, kind in kinds.items():
        if type(found.get(name)) is not kind:
            raise DiffoptError(f"`{name}` is missing or of another kind", str(path))
    for name in _TABLES[1:]:
        if not all(isinstance(entry, dict) for entry in found[name].values()):
            raise DiffoptError(f"an entry of `{name}` is of another kind", str(path))
    if not all(isinstance(text, str) for text in found["programs"].values()):
        raise DiffoptError("a program is no text", str(path))
    return Results(**{name: found[name] for name in (*kinds, "suite")})


_TABLES = ("programs", "measurements", "targets", "answers", "verdicts")


def levels(tasks: Sequence[Task]) -> list[int]:
    """Return the levels of tasks, in order."""
    return sorted({task.level for task in tasks})
