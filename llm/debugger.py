"""Mend what fails, one attempt after another: a few fixes, then a fresh start, then give up (PAPER.md, section 2)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

_T = TypeVar("_T")

_VARYING = (
    (re.compile(r"0x[0-9a-fA-F]+"), "0x"),
    (re.compile(r"(?:/[\w.+-]+)+"), "PATH"),
    (re.compile(r"\d+"), "N"),
)


@dataclass(frozen=True)
class Effort:
    """How long to go on: fixes of one piece, and pieces begun anew. The paper's are 3 and 5."""

    fixes: int = 3
    restarts: int = 5


@dataclass(frozen=True)
class Attempt(Generic[_T]):
    """One piece and what was wrong with it; `problem` is empty for the one that works."""

    start: int
    fix: int
    piece: _T
    problem: str


@dataclass(frozen=True)
class Mended(Generic[_T]):
    """The piece that works, or `None`, and all attempts in order."""

    piece: _T | None
    attempts: tuple[Attempt[_T], ...]
    why: str


def mend(
    write: Callable[[], _T | None],
    fix: Callable[[_T, str], _T | None],
    check: Callable[[_T], str],
    effort: Effort | None = None,
) -> Mended[_T]:
    """Write a piece, check it, and have it mended until it passes; each question waits for the answer before it.

    A problem seen before in the same start ends that start: the same mistake again is not worth another question.

    Args:
        write: returns a new piece, or `None` where none is to be had.
        fix: returns a piece mended for a problem, or `None`.
        check: returns what is wrong with a piece; empty where it is right.
    """
    effort = effort or Effort()
    attempts: list[Attempt[_T]] = []
    for start in range(effort.restarts):
        piece = write()
        seen: set[str] = set()
        for number in range(effort.fixes + 1):
            if piece is None:
                break
            problem = check(piece)
            attempts.append(Attempt(start, number, piece, problem))
            if not problem:
                return Mended(piece, tuple(attempts), "")
            mark = fingerprint(problem)
            if mark in seen:
                break
            seen.add(mark)
            piece = fix(piece, problem) if number < effort.fixes else None
        if not attempts or attempts[-1].start != start:
            return Mended(None, tuple(attempts), "no piece was written")
    return Mended(None, tuple(attempts), attempts[-1].problem if attempts else "no piece was written")


def fingerprint(problem: str) -> str:
    """Return what is the same about a problem from one run to the next: numbers, paths and addresses left out."""
    for pattern, word in _VARYING:
        problem = pattern.sub(word, problem)
    return hashlib.sha256(" ".join(problem.split()).encode()).hexdigest()[:16]
