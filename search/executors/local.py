"""Measure candidates here, one after another: two on one device would only measure each other."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Protocol

from diffopt.bench.outcome import Failed, Outcome
from diffopt.ir.errors import DiffoptError
from diffopt.search.records import Candidate


class Executor(Protocol):
    """Where candidates are measured.

    `submit` may be called while `free` is true and returns at once or not, as it likes; `wait` returns each submitted
    candidate once, in any order, with its outcome. A candidate that crashes, hangs or breaks a worker comes back as
    `Failed`; an exception from `wait` is a mistake of the user's or ours, and ends the search.
    """

    @property
    def free(self) -> bool:
        """Whether another candidate may be submitted."""

    def submit(self, candidate: Candidate) -> None:
        """Take a candidate to measure."""

    def wait(self) -> tuple[Candidate, Outcome]:
        """Return a submitted candidate and its outcome as soon as there is one."""


class LocalExecutor:
    """An `Executor` that calls `evaluate` in this process; `evaluate` has its own worker for what may crash.

    A `DiffoptError` is the user's to mend and passes through; any other exception is a defect met on the way to one
    program, and becomes that program's outcome, traceback included.
    """

    def __init__(self, evaluate: Callable[[Candidate], Outcome]) -> None:
        self._evaluate = evaluate
        self._candidate: Candidate | None = None

    @property
    def free(self) -> bool:
        """See `Executor`."""
        return self._candidate is None

    def submit(self, candidate: Candidate) -> None:
        """See `Executor`."""
        if self._candidate is not None:
            raise ValueError("one candidate at a time: wait for the other first")
        self._candidate = candidate

    def wait(self) -> tuple[Candidate, Outcome]:
        """See `Executor`."""
        candidate, self._candidate = self._candidate, None
        if candidate is None:
            raise ValueError("nothing was submitted")
        try:
            return candidate, self._evaluate(candidate)
        except DiffoptError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it goes into the outcome with its traceback
            message = f"{type(error).__name__}: {error}".splitlines()[0]
            return candidate, Failed("internal", message, traceback.format_exc())
