"""Measure one program at a time against a baseline, each text once, whoever asks for it."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from diffopt.bench.evaluate import Evaluator
from diffopt.bench.forkserver import ForkServer
from diffopt.bench.suite.families import FAMILIES
from diffopt.bench.suite.measuring import Job, Protocol, evaluator_of, folder_of, measured
from diffopt.bench.suite.store import MeasurementStore


class OutOfTime(Exception):
    """The time for measuring is over, and the program asked for is not in the store."""


class Meter:
    """Measures programs of one baseline; a context manager.

    The store is shared by all who ask: what one has had measured, the others get for nothing. The baseline's own worker is
    started with the first program that is not in the store.

    Args:
        end: start no measurement after this time of the clock.
        listen: told of each measurement, in a line.
    """

    def __init__(
        self,
        family: str,
        baseline: str,
        store: MeasurementStore,
        *,
        protocol: Protocol,
        work: Path,
        server: ForkServer,
        end: float = float("inf"),
        listen: Callable[[str], None] = lambda text: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.family, self.baseline, self.protocol = family, baseline, protocol
        self._store, self._server, self._end, self._listen, self._clock = store, server, end, listen, clock
        self._folder = folder_of(work / protocol.split, FAMILIES[family].model, baseline)
        self._stack = contextlib.ExitStack()
        self._evaluator: Evaluator | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self._evaluator = None
        for name in ("candidates", "images"):
            shutil.rmtree(self._folder / name, ignore_errors=True)

    def known(self, code: str) -> dict[str, Any] | None:
        """Return the record of a program that was measured already, or None."""
        return self._store.get(self._job(code).key(self.protocol))

    def record(self, code: str, name: str = "") -> Mapping[str, Any]:
        """Return the record of a program, measured now where it was not yet.

        Raises:
            OutOfTime: it was not, and the time is over.
            DiffoptError: the baseline does not run, or the disk is full.
        """
        found = self.known(code)
        if found is not None:
            return found
        started = self._clock()
        if started >= self._end:
            raise OutOfTime
        made = self._measure(self._job(code))
        self._store.add(self._job(code).key(self.protocol), made)
        self._listen(f"{self.family} {self.protocol.split}: {self._clock() - started:.0f} s  {name}")
        return made

    def _measure(self, job: Job) -> dict[str, Any]:
        if self._evaluator is None:
            model = FAMILIES[self.family].model
            self._evaluator = self._stack.enter_context(
                evaluator_of(model, self.baseline, self._folder, self.protocol, self._server)
            )
        return measured(self._evaluator, job, self.protocol)

    def _job(self, code: str) -> Job:
        return Job(self.family, self.baseline, code, aimed=True)
