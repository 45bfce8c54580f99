"""Where programs run: a fork server, the baseline's worker beside it, and a fresh process for every program."""

from __future__ import annotations

import dataclasses
import hashlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from diffopt.bench import memory
from diffopt.bench.contestant import Contestant
from diffopt.bench.disk import clear, empty_folder, free_bytes, make_folder, write_text
from diffopt.bench.environment import worker_confinement, worker_environment
from diffopt.bench.faults import baseline_error, check_disk
from diffopt.bench.forkserver import ForkServer
from diffopt.bench.latency import warm_up
from diffopt.bench.outcome import Failed
from diffopt.bench.resident import Died, Resident
from diffopt.bench.statistics import median
from diffopt.bench.workload import Workload

Progress = Callable[[str, int, int], None]
_T = TypeVar("_T")


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


class Workplace:
    """Runs programs, each in a fresh process; a baseline that stops working is started again once, then it is an error.

    One owner, one thread. What it allows may be changed between programs:

    Args:
        timeout_s: for loading with all building, and for a first call.
        memory_limit: bytes of resident memory of a program's processes; None for 80 % of what is available.
        disk_limit: bytes a program may write; None for 80 % of what is free.
        readable: what programs other than the baseline may read.
        walls: whether programs are confined; off where the baseline itself needs what the walls forbid.
    """

    disk_limit: int | None = None
    walls = True
    readable: tuple[str, ...] = ("/",)

    def __init__(
        self,
        program: Program,
        workload: Workload,
        server: ForkServer,
        *,
        work: Path,
        engines: Path,
        device: str,
        model: str | None,
        home: Path,
        offline: bool,
        hidden: Sequence[Path],
        timeout_s: float,
        memory_limit: int | None,
        secret: int | None,
        progress: Progress,
    ) -> None:
        self.program, self.workload, self.server = program, workload, server
        self.work, self.engines, self.device, self.model = work, engines, device, model
        self.timeout_s = timeout_s
        self.memory_limit = memory_limit or memory.available_bytes() * 8 // 10
        self.secret = np.random.default_rng(secrets.randbits(128) if secret is None else secret)
        self.usual_s: list[float] = []
        self._home, self._offline, self._progress = home, offline, progress
        self._hidden = (work, *(path.resolve() for path in hidden))
        self._resident: Contestant | None = None

    def open(self) -> None:
        """Make the folders, and start the baseline.

        Raises:
            DiffoptError: it does not run.
        """
        for folder in (self.work, self.engines):
            make_folder(folder)
        self.baseline()

    def close(self) -> None:
        """End the baseline's worker; the server is its owner's."""
        if self._resident:
            self._resident.resident.close()

    def run(self, program: Program, work: Callable[[Contestant], _T]) -> _T | Failed:
        """Work with a program; start again, once, when it was the baseline that died."""
        try:
            self.baseline()
            return self.guarded(program, work)
        except Died:
            try:
                return self.guarded(program, work)
            except Died as died:
                raise baseline_error(self.program.name, died.failed) from died

    def guarded(self, program: Program, work: Callable[[Contestant], _T]) -> _T | Failed:
        """Work with a program in a fresh process; its failures are values, the baseline's are not."""
        candidate = self._spawn(program, self.work / "candidates" / program.hash)
        try:
            self._load(candidate, program)
            return work(candidate)
        except Died as died:
            if died.resident is not candidate.resident:
                raise
            if died.failed.kind == "disk":
                empty_folder(self.work / "candidates" / program.hash, frozenset({"pipeline.py", "worker.log"}))
            check_disk(self.engines, self.work)
            return died.failed
        finally:
            candidate.resident.close()

    def baseline(self) -> Contestant:
        """Return the baseline's worker, a new one if the last has died."""
        if self._resident and self._resident.resident.alive:
            return self._resident
        if self._resident:
            self._resident.resident.close()
        self._resident = self._spawn(self.program, self.work / "baseline")
        try:
            self._load(self._resident, self.program)
            self.usual_s += warm_up(self._resident, self.workload.draws("search", self.secret), fewest=3)[1:]
            self.workload = dataclasses.replace(self.workload, frames=self._resident.frames)
        except Died as died:
            if self.walls and not self.usual_s and died.failed.kind in ("build", "crash"):
                self.walls = False  # the user's own pipeline needs what the walls forbid; outcomes tell the guards
                self._resident.resident.close()  # it may live on, without a pipeline
                return self.baseline()
            raise baseline_error(self.program.name, died.failed) from died
        return self._resident

    def _spawn(self, program: Program, folder: Path) -> Contestant:
        own = make_folder(self.work / "candidates" / program.hash)
        resident = Resident(
            program.server or self.server, program.name, folder,
            environment=worker_environment(folder, self.engines), memory_limit=self.memory_limit,
            disk_limit=self.disk_limit or free_bytes(own) * 8 // 10,
            confinement=worker_confinement(
                folder, own, self.engines, home=self._home, hidden=self._hidden, offline=self._offline,
                walls=self.walls, readable=("/",) if program is self.program else self.readable,
            ),
        )  # fmt: skip
        usual_s = median(self.usual_s) if self.usual_s else 0.0
        return Contestant(resident, self.workload, timeout_s=self.timeout_s, usual_s=usual_s)

    def _load(self, contestant: Contestant, program: Program) -> None:
        self._progress("load", 0, 1)
        path = make_folder(self.work / "candidates" / program.hash) / "pipeline.py"
        clear(path)
        write_text(path, program.pipeline_py)
        contestant.load(path, model=self.model, device=self.device, engines=self.engines)
