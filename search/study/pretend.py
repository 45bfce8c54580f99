"""A measure that pretends: it takes its time and answers from the synthetic problem; for tests and for overheads."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from diffopt.bench.outcome import Outcome
from diffopt.search.records import Candidate
from diffopt.search.study.synthetic import Synthetic

if TYPE_CHECKING:
    from diffopt.ir.description import JSON


def payload(candidate: Candidate) -> dict[str, JSON]:
    """Return a candidate as plain data."""
    return {"id": candidate.id, "trace": candidate.trace, "key": candidate.key}


def measure(settings: Mapping[str, JSON]) -> Callable[[Mapping[str, JSON]], Outcome]:
    """Make the measure.

    Args:
        settings: ``seed`` of the problem, ``seconds`` that a measurement takes, and ``log``: a folder where each
            measurement leaves a line; ``kills`` lists ids of candidates whose first measurement kills its process.
    """
    problem, seconds = Synthetic(int(cast(int, settings["seed"]))), float(cast(float, settings["seconds"]))
    log, kills = Path(str(settings.get("log", ""))), cast("list[int]", settings.get("kills", []))

    def run(given: Mapping[str, JSON]) -> Outcome:
        number = int(cast(int, given["id"]))
        if log.name:
            with (log / "measured").open("a") as lines:
                lines.write(f"{number}\n")
            marker = log / f"killed-{number}"
            if number in kills and not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(seconds)
        return problem.evaluate(Candidate(number, str(given["trace"]), str(given["key"]), "pretend"))

    return run
