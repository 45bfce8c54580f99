"""What a long run says while it goes on; a display listens, nothing else does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffopt.bench.evaluate import Measured, Outcome
    from diffopt.search.records import Candidate


@dataclass(frozen=True)
class Assumed:
    """The source was read in a way that it does not prove; `file:line: assumed: ...`."""

    text: str


@dataclass(frozen=True)
class Stage:
    """A part of the run begins."""

    text: str


@dataclass(frozen=True)
class Progress:
    """Something of the current stage is done: `done` of `total`."""

    text: str
    done: int
    total: int


@dataclass(frozen=True)
class Asked:
    """A candidate is being built and measured."""

    candidate: Candidate


@dataclass(frozen=True)
class Told:
    """A candidate has an outcome."""

    candidate: Candidate
    outcome: Outcome


@dataclass(frozen=True)
class Deciding:
    """A program is being measured apart from the search: for a level, or as a control arm."""

    name: str
    trace: str


@dataclass(frozen=True)
class Decided:
    """A program was measured on held-out prompts, for a level or as a control arm."""

    name: str
    trace: str
    outcome: Outcome


@dataclass(frozen=True)
class Missed:
    """Nothing met the goal; a program that came near, and what it misses."""

    trace: str
    outcome: Measured
    reasons: tuple[str, ...]


Event = Assumed | Stage | Progress | Asked | Told | Deciding | Decided | Missed
Listener = Callable[[Event], None]


def silence(event: Event) -> None:
    """Listen to nothing."""
