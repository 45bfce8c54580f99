"""Measure what the sandbox's start costs on top of the interpreter: `python -m diffopt.llm.sandbox_cost [JSON]`."""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from diffopt.llm.sandbox import LEVELS, PRELOAD, Limits, run

ROUNDS = 30
CODE = "def f(text):\n    return text\n"


def measure(rounds: int = ROUNDS, clock: Callable[[], float] = time.perf_counter) -> dict[str, object]:
    """Return medians in milliseconds of a bare interpreter, a confined run, and one with libcst; interleaved."""
    bare = [sys.executable, "-S", "-s", "-P", "-B", "-c", "pass"]
    with_libcst = [sys.executable, "-s", "-P", "-B", "-c", f"import {', '.join(PRELOAD)}"]
    taken: dict[str, list[float]] = {"bare": [], "confined": [], "libcst": [], "libcst confined": []}
    level = 0
    for _ in range(rounds):
        for name, command in (("bare", bare), ("libcst", with_libcst)):
            start = clock()
            subprocess.run(command, check=True, env={"LANG": "C.UTF-8"}, stdin=subprocess.DEVNULL)
            taken[name].append(1e3 * (clock() - start))
        for name, preload in (("confined", ()), ("libcst confined", PRELOAD)):
            start = clock()
            ran = run(CODE, "f", ["text"], Limits(level=0), preload=preload)
            taken[name].append(1e3 * (clock() - start))
            assert ran.status == "ok", ran
            level = ran.level
    medians = {name: round(statistics.median(values), 2) for name, values in taken.items()}
    return {
        "command": "python -m diffopt.llm.sandbox_cost",
        "milliseconds": medians,
        "sandbox": round(medians["confined"] - medians["bare"], 2),
        "level": LEVELS[level],
        "rounds": rounds,
        "python": platform.python_version(),
        "kernel": platform.release().split("-")[0],
        "machine": platform.machine(),
    }


def main(arguments: Sequence[str]) -> None:
    """Measure, print, and write to the file that is named."""
    text = json.dumps(measure(), indent=1) + "\n"
    if arguments:
        Path(arguments[0]).write_text(text, encoding="utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    main(sys.argv[1:])
