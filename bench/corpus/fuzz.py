"""Lift broken, cut and made-up scripts: `python -m diffopt.bench.corpus.fuzz --count 10000`.

Every input must lift or be refused in one line, within two seconds; no file of the corpus may change.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import FrameType

from diffopt.bench.corpus.scripts import made_up, mutated
from diffopt.ir.description import build_module
from diffopt.ir.emit_edits import apply_edits, emit_edits
from diffopt.ir.errors import DiffoptError
from diffopt.ir.source_script import describe_texts

LIMIT_S = 2.0
CHUNK = 250
CORPUS = Path("tests/ir/corpus")
EDITED_CLASSES = ("diffusers.StableDiffusionPipeline", "diffusers.StableDiffusionXLPipeline")


class _TooLong(BaseException):
    """The limit of one input is over; no `except Exception` on the way may swallow it."""


@dataclass
class Summary:
    """What became of the inputs."""

    inputs: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    failures: list[str] = field(default_factory=list)

    def add(self, other: Summary) -> None:
        """Count another run in."""
        self.inputs += other.inputs
        self.outcomes.update(other.outcomes)
        self.slowest_s = max(self.slowest_s, other.slowest_s)
        self.failures += other.failures


@cache
def texts(corpus: Path) -> tuple[tuple[str, str], ...]:
    """Return name and text of every script and notebook of the corpus."""
    files = sorted(p for p in corpus.rglob("*") if p.name.endswith((".py.txt", ".ipynb.txt")))
    return tuple((p.name.removesuffix(".txt"), p.read_text(encoding="utf-8")) for p in files)


def one(seed: int, corpus: Path) -> tuple[str, str]:
    """Return name and text of an input; the same for the same seed."""
    chance = random.Random(seed)
    if chance.random() < 0.3:
        return "made_up.py", made_up(chance)
    found = texts(corpus)
    name, text = chance.choice(found)
    return name, mutated(chance, text, chance.choice(found)[1])


def lift(name: str, text: str) -> str:
    """Lift an input, and edit what can be edited; say what became of it.

    Raises:
        AssertionError: a refusal of more than one line, or a patch that is not Python.
    """
    try:
        found = describe_texts(text, name)
    except DiffoptError as error:
        _check_one_line(error)
        return "refused"
    if len(found) != 1 or found[0].pipeline_class not in EDITED_CLASSES or not name.endswith(".py"):
        return "lifted"
    known = replace(found[0], unknowns=(), height=found[0].height or 512, width=found[0].width or 512)
    try:
        from diffopt.passes.pipeline import Trace, run

        after = run(Trace.parse("reduce-steps{steps=3}"), build_module(known))
        if type(after).__name__ != "ModuleOp":
            return "lifted"
        edits = emit_edits(after, text, path=name)  # type: ignore[arg-type]
    except DiffoptError as error:
        _check_one_line(error)
        return "lifted, not edited"
    ast.parse(apply_edits(text, edits).removeprefix("\ufeff"))
    return "lifted and edited"


def _check_one_line(error: DiffoptError) -> None:
    if "\n" in str(error):
        raise AssertionError(str(error))


def run_chunk(seeds: Sequence[int], corpus: Path) -> Summary:
    """Lift the inputs of some seeds."""
    signal.signal(signal.SIGPROF, _stop)
    summary = Summary()
    for seed in seeds:
        name, text = one(seed, corpus)
        start = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
        try:
            outcome = lift(name, text)
        except _TooLong:
            outcome = "hang"
            summary.failures.append(f"seed {seed} ({name}): more than {LIMIT_S} s")
        except Exception as error:  # noqa: BLE001 - a traceback is what is looked for
            outcome = "traceback"
            place = traceback.extract_tb(error.__traceback__)[-1]
            summary.failures.append(
                f"seed {seed} ({name}): {type(error).__name__}: {error} at {Path(place.filename).name}:{place.lineno}"
            )
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        summary.inputs += 1
        summary.outcomes[outcome] += 1
        summary.slowest_s = max(summary.slowest_s, time.process_time() - start)
    return summary


def _stop(signum: int, frame: FrameType | None) -> None:
    raise _TooLong


def digest(corpus: Path) -> str:
    """Return the hash of all files of the corpus, names and contents."""
    state = hashlib.sha256()
    for file in sorted(p for p in corpus.rglob("*") if p.is_file()):
        state.update(str(file.relative_to(corpus)).encode() + b"\0" + file.read_bytes() + b"\0")
    return state.hexdigest()


def main(arguments: Sequence[str] | None = None) -> int:
    """Lift many inputs and print, or keep, the summary."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--corpus", type=Path, default=CORPUS)
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args(arguments)
    before = digest(given.corpus)
    seeds = range(given.seed, given.seed + given.count)
    chunks = [seeds[i : i + CHUNK] for i in range(0, len(seeds), CHUNK)]
    total = Summary()
    with ProcessPoolExecutor(given.processes) as pool:
        for part in pool.map(run_chunk, chunks, [given.corpus] * len(chunks)):
            total.add(part)
    lost = before != digest(given.corpus)
    told = {
        "command": f"python -m diffopt.bench.corpus.fuzz --count {given.count} --seed {given.seed}",
        "python": sys.version.split()[0],
        "inputs": total.inputs,
        "outcomes": dict(sorted(total.outcomes.items())),
        "failures": total.failures,
        "slowest_s": round(total.slowest_s, 3),
        "limit_s": LIMIT_S,
        "corpus_changed": lost,
    }
    text = json.dumps(told, indent=1)
    print(text)
    if given.output is not None:
        given.output.write_text(text + "\n", encoding="utf-8")
    return int(bool(total.failures) or lost)


if __name__ == "__main__":
    sys.exit(main())
