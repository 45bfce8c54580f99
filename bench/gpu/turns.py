"""Several processes build beside each other; each then has the card for itself while it measures."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

Workers: TypeAlias = Mapping[str, "subprocess.Popen[bytes]"]


def await_built(work: Path, workers: Workers, until: float) -> list[str]:
    """Wait until each has written `NAME.built` or has ended, or until the time is over; return who is late.

    until: seconds since the epoch.
    """
    while True:
        late = [name for name, worker in workers.items() if not _built(work, name) and worker.poll() is None]
        if not late or time.time() >= until:
            return late
        time.sleep(0.1)


def take_turns(
    work: Path, workers: Workers, shares: Mapping[str, float], *, built_until: float, until: float, spare_s: float
) -> list[str]:
    """Let one after another measure, and return who was ended because it was not built in time.

    No turn begins while another still builds or checks, and each ends before the next begins: a timing with another's
    work beside it says nothing.

    Args:
        shares: part of the time by name.
        built_until, until: seconds since the epoch.
        spare_s: what the last may take beyond its turn to write what is under way.
    """
    late = await_built(work, workers, built_until)
    for name in late:
        end(workers[name], 0)
    left = [name for name, worker in workers.items() if worker.poll() is None]
    while left:
        name = left.pop(0)
        share = shares[name] / (shares[name] + sum(shares[other] for other in left))
        seconds = max((until - time.time()) * share, 5)
        (work / f"{name}.part").write_text(json.dumps({"seconds": seconds}))
        os.replace(work / f"{name}.part", work / f"{name}.turn")
        end(workers[name], seconds + (0 if left else spare_s))
    return late


def end(worker: subprocess.Popen[bytes], seconds: float) -> None:
    """Wait for a process, and kill it after some seconds."""
    try:
        worker.wait(timeout=max(seconds, 0.1))
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()


def _built(work: Path, name: str) -> bool:
    return (work / f"{name}.built").exists()
