"""What the search writes down: candidates, trials, proposals and refused attempts, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from xdsl.dialects.builtin import ModuleOp

    from diffopt.bench.outcome import Outcome
    from diffopt.passes.pipeline import Trace


@dataclass(frozen=True)
class Candidate:
    """A legal program that was or will be measured once.

    Args:
        id: counts from 1 within its run, in the order of asking.
        trace: the passes as text, with every option spelled out.
        key: hash of the canonical IR the trace leads to; unique within a run.
        origin: who came up with it, such as ``rules`` or ``variation:insert``.
        facts: numbers read from the transformed IR; what the surrogate sees.
        predicted: what the surrogate expected it to be worth (see `acquisition`); `None` where it was not asked.
    """

    id: int
    trace: str
    key: str
    origin: str
    facts: Mapping[str, float] = field(default_factory=dict, compare=False)
    predicted: float | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Trial:
    """A candidate and what came of it."""

    candidate: Candidate
    outcome: Outcome


@dataclass(frozen=True)
class Proposal:
    """A legal trace that a proposer asked for, waiting for its turn."""

    trace: str
    key: str
    origin: str
    facts: Mapping[str, float] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Attempt:
    """A trace that was never measured, and why."""

    trace: str
    origin: str
    reason: str
    where: str = ""
    rule: str = ""


class Proposer(Protocol):
    """A source of programs worth trying: rules, a language model, an archive of earlier runs.

    `propose` may be slow and need not be deterministic: the engine calls it once in the life of a run and stores what
    it said, so a resumed run does not call it again. Traces may be illegal or equal; the engine checks each one and
    keeps the reason of those it refuses. The best come first.

    One with an attribute `outside` that is true is nobody whom diffopt vouches for, such as a language model: its programs
    are measured on its word only as long as they hold their own beside those of others (see `standing.unearned`).
    """

    @property
    def name(self) -> str:
        """Short name; becomes the origin of its candidates."""

    def propose(self, module: ModuleOp, history: Sequence[Trial], count: int) -> list[Trace]:
        """Return up to `count` traces for this module, best first."""
