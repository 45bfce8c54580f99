"""What the ways of searching with a language model share: they ask a planner and have plans measured."""

from __future__ import annotations

from typing import Protocol

from xdsl.dialects.builtin import ModuleOp

from diffopt.llm.feedback import Trial
from diffopt.passes.pipeline import Trace


class Measure(Protocol):
    """Measures traces, each program once in the life of a run.

    A program that was measured in an earlier session of the run comes back as it was then, and costs nothing.
    """

    @property
    def spent(self) -> bool:
        """Whether the budget of measurements is used up."""

    def __call__(self, trace: Trace, origin: str) -> Trial | None:
        """Measure a trace for an origin; `None` where the budget is spent, or the goal forbids the program."""


class Strategy(Protocol):
    """A way of spending a budget of measured candidates. The same answers give the same measurements."""

    @property
    def name(self) -> str:
        """As `--planner` names it."""

    def search(self, module: ModuleOp, measure: Measure) -> str:
        """Search until the budget or the questions are spent, and return why it stopped."""
