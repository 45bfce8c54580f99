"""Memory of a process and all it started, read by the parent from /proc (Linux)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

PROC = Path("/proc")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def parents() -> dict[int, int]:
    """Return the parent of every running process by its id."""
    found = {}
    for name in os.listdir(PROC):
        if name.isdigit() and (parent := _parent(int(name))) is not None:
            found[int(name)] = parent
    return found


def descendants(root: int, tree: Mapping[int, int]) -> set[int]:
    """Return a process and everything below it in a tree of parents; nothing once it is gone."""
    found, grown = {root} & tree.keys(), True
    while grown:
        below = {child for child, parent in tree.items() if parent in found} - found
        found |= below
        grown = bool(below)
    return found


def resident_bytes(pid: int) -> int:
    """Return a process's resident memory now; 0 when it is gone."""
    try:
        return int((PROC / str(pid) / "statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return 0


def peak_bytes(pid: int) -> int:
    """Return a process's own resident peak (VmHWM) as the kernel kept it; 0 when it is gone."""
    try:
        lines = (PROC / str(pid) / "status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def available_bytes() -> int:
    """Return the memory that new processes could use on this machine now."""
    lines = (PROC / "meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


class MemoryWatch:
    """Samples the resident memory of a changing set of processes and keeps the peak.

    Reading one process costs ten microseconds, finding them all a millisecond or two: `look` does that, and `sample`
    only when the last look is a second old, so that short timed calls are not disturbed. Pages that a fork still
    shares are counted for each process that maps them.
    """

    def __init__(self, pid: int, members: Callable[[], Iterable[int]], clock: Callable[[], float] = time.monotonic):
        self._pid, self._members, self._clock = pid, members, clock
        self._known: tuple[int, ...] = (pid,)
        self._next_look = clock() + 1.0
        self.now_bytes = 0
        self.peak_bytes = 0

    def look(self) -> tuple[int, ...]:
        """Find the processes anew and return them."""
        self._known = tuple(self._members())
        self._next_look = self._clock() + 1.0
        return self._known

    def sample(self) -> int:
        """Read the memory now, in bytes, and remember it if it is the peak."""
        if self._clock() >= self._next_look:
            self.look()
        self.now_bytes = sum(resident_bytes(pid) for pid in self._known)
        self.peak_bytes = max(self.peak_bytes, self.now_bytes, peak_bytes(self._pid))
        return self.now_bytes


def _parent(pid: int) -> int | None:
    try:
        stat = (PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[1])
