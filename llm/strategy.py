"""What the ways of searching with a language model share: they ask a planner and have plans measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from xdsl.dialects.builtin import ModuleOp

from diffopt.llm.feedback import Trial
from diffopt.passes.pipeline import Trace


class Planning(Protocol):
    """Who plans: a `Planner` that asks a language model, or what stands in for one.

    `rejected` holds plans that broke a rule, which the one asking may clear; `problems` what went wrong, oldest first.
    """

    @property
    def rejected(self) -> list[Any]:
        """Plans that were not measured, and why."""

    @property
    def problems(self) -> list[Any]:
        """Questions that got no answer; see `client.Problem`."""

    def propose(
        self,
        module: ModuleOp,
        history: Sequence[Trial],
        count: int,
        *,
        task: str = "",
        known: Sequence[Trial] | None = None,
    ) -> list[Trace]:
        """Return up to `count` legal traces of programs not measured yet; see `Planner.propose`."""


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
