"""Whether a program that is stopped really rests: the processor time it takes while the baseline is timed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from diffopt.bench.memory import PROC
from diffopt.bench.resident import Images

_TICKS = os.sysconf("SC_CLK_TCK")
_LEAST_S, _SHARE = 0.1, 0.1

Call = Callable[[list[str], list[int]], tuple[float, Images]]


class IdleWatch:
    """Counts what a stopped program and all it started use while something else runs.

    Processes too short-lived to be stopped leave their time with the one that reaps them, so that is counted too.

    Args:
        members: the program's processes now.
        reaper: who reaps those that have lost their parent, or None.
    """

    def __init__(self, members: Callable[[], Iterable[int]], reaper: Callable[[], int | None]) -> None:
        self._members, self._reaper = members, reaper
        self._used_s = self._watched_s = 0.0

    def during(self, call: Call) -> Call:
        """Return a call that is watched."""

        def watched(prompts: list[str], seeds: list[int]) -> tuple[float, Images]:
            before = self._used()
            found = call(prompts, seeds)
            self._used_s += max(0.0, self._used() - before)
            self._watched_s += found[0]
            return found

        return watched

    def fault(self) -> str | None:
        """Say what the program did meanwhile, or None: a tenth of a second is within what counting can tell."""
        if self._used_s <= max(_LEAST_S, _SHARE * self._watched_s):
            return None
        return f"worked for {self._used_s:.2f} s while the baseline was timed for {self._watched_s:.2f} s"

    def _used(self) -> float:
        reaper = self._reaper()
        return sum(_seconds(pid, 11) for pid in self._members()) + (_seconds(reaper, 13) if reaper else 0.0)


def _seconds(pid: int, field: int) -> float:
    """Return user and system time of a process (11), or of its reaped children (13)."""
    try:
        stat = (Path(PROC) / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return 0.0
    values = stat.rpartition(")")[2].split()
    return (int(values[field]) + int(values[field + 1])) / _TICKS
