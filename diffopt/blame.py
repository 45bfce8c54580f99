"""Which of several changes is at fault: halving over beginnings, then a check that it is bad by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

Test = Callable[[tuple[int, ...]], bool]
"""Says whether a program with these changes, in order, is bad. Each call is one measurement."""

Legal = Callable[[tuple[int, ...]], bool]
"""Says whether a program of these changes can be made at all; costs nothing."""


@dataclass(frozen=True)
class Blame:
    """What was found.

    Args:
        culprits: changes that are bad together, as few as were found; empty where the whole is not bad. The last one is
            that which turns good to bad.
        measured: how many programs were measured.
        tried: each program that was measured, and whether it was bad.
    """

    culprits: tuple[int, ...]
    measured: int
    tried: tuple[tuple[tuple[int, ...], bool], ...]


def blame(count: int, test: Test, *, legal: Legal = lambda chosen: True, most: int = 1000) -> Blame:
    """Find the change at fault among `count`, with about log2 of their number measurements where one alone is.

    The beginnings of the list go from good (none) to bad (all), so halving finds a change that turns good to bad. Where it
    is not bad by itself, the others it needs are found by leaving parts of them out (ddmin, Zeller and Hildebrandt 2002).

    Args:
        most: measurements; what is left then is given, minimal or not.
    """
    known: dict[tuple[int, ...], bool] = {(): False}

    def bad(chosen: tuple[int, ...]) -> bool:
        if chosen not in known:
            known[chosen] = test(chosen)
        return known[chosen]

    def found(culprits: tuple[int, ...]) -> Blame:
        tried = tuple((chosen, verdict) for chosen, verdict in known.items() if chosen)
        return Blame(culprits, len(tried), tried)

    everything = tuple(range(count))
    if not bad(everything):
        return found(())
    good, wrong = 0, count
    while wrong - good > 1:
        middle = (good + wrong) // 2
        if bad(_beginning(middle, legal)):
            wrong = middle
        else:
            good = middle
    last = wrong - 1
    alone = _smallest(last, legal)
    if bad(alone):
        return found(alone)
    return found(_fewest(_beginning(wrong, legal), last, bad, legal, lambda: len(known) - 1 < most))


def _beginning(length: int, legal: Legal) -> tuple[int, ...]:
    """Return the longest beginning of at most so many changes that can be made."""
    return next(tuple(range(n)) for n in range(length, -1, -1) if n == 0 or legal(tuple(range(n))))


def _smallest(last: int, legal: Legal) -> tuple[int, ...]:
    """Return a change alone, or with the fewest earlier ones, latest first, without which it cannot be made."""
    chosen: tuple[int, ...] = (last,)
    for earlier in range(last - 1, -1, -1):
        if legal(chosen):
            return chosen
        chosen = (earlier, *chosen)
    needed = chosen
    for one in chosen[:-1]:
        fewer = tuple(index for index in needed if index != one)
        needed = fewer if legal(fewer) else needed
    return needed


def _fewest(whole: Sequence[int], last: int, bad: Test, legal: Legal, go_on: Callable[[], bool]) -> tuple[int, ...]:
    """Leave out parts of the earlier changes, ever smaller ones, as long as the rest stays bad."""
    kept = [index for index in whole if index != last]
    parts = 2
    while kept and parts <= 2 * len(kept) and go_on():
        size = max(1, len(kept) // parts)
        for start in range(0, len(kept), size):
            rest = kept[:start] + kept[start + size :]
            chosen = (*rest, last)
            if go_on() and legal(chosen) and bad(chosen):
                kept, parts = rest, max(2, parts - 1)
                break
        else:
            if size == 1:
                break
            parts *= 2
    return (*kept, last)
