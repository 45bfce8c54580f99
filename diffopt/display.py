"""Progress for people, on standard error: a live line of what goes on, and one line a candidate."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Self

from diffopt.events import Asked, Assumed, Decided, Deciding, Event, Missed, Progress, Stage, Told

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from xdsl.dialects.builtin import ModuleOp

    from diffopt.bench.evaluate import Measured, Outcome


SILENCE_S = 30.0
"""Where there is no live line: how long nothing is printed before progress is told."""


class Display:
    """Listens to a run and shows it; a context manager.

    On a terminal it keeps a live status line; elsewhere it prints one line an event, without control characters: what is
    measured as it begins, and its progress where nothing was printed for a while.
    """

    def __init__(self, *, quiet: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
        self._status = self._console.status("starting")
        self._clock, self._said = clock, clock()
        self._stage = self._candidate = ""
        self._measured: list[Measured] = []
        self.missed: list[Missed] = []

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._status.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._status.stop()

    def __call__(self, event: Event) -> None:
        """Show an event."""
        from rich.markup import escape

        match event:
            case Assumed(text):
                # also where nothing else is shown: what is assumed is never assumed in silence
                sys.stderr.write(f"{text}\n") if self._console.quiet else self._console.print(escape(text))
            case Stage(text):
                self._stage, self._candidate = text, ""
                self._print(f"[bold]{escape(text)}[/bold]")
            case Asked(candidate):
                self._begin(f"{candidate.id:3d}  {short(candidate.trace)}")
            case Deciding(name, trace):
                self._begin(f"     {name + ': ' if name else ''}{short(trace)}")
            case Progress(text, done, total):
                self._show(f"{self._candidate or self._stage}: {text} {done}/{total}")
            case Told(candidate, outcome):
                self._remember(outcome)
                self._print(escape(f"{candidate.id:3d}  {describe(outcome)}  {short(candidate.trace)}"))
            case Decided(name, trace, outcome):
                self._print(escape(f"     {describe(outcome)}  {name + ': ' if name else ''}{short(trace)}"))
                self._say_why(outcome)
            case Missed(trace, outcome, reasons):
                self.missed.append(event)
                self._console.print(escape(f"near by: {short(trace)}\n         {'; '.join(reasons)}"))
                self._say_why(outcome)

    def _print(self, text: str) -> None:
        self._said = self._clock()
        self._console.print(text)

    def _begin(self, candidate: str) -> None:
        from rich.markup import escape

        self._candidate = candidate
        if self._console.is_terminal:
            self._show(f"{candidate}: measuring")
        else:
            self._print(escape(f"{candidate}: measuring"))

    def _show(self, text: str) -> None:
        """Show where things stand: on the live line, or on one of its own after a silence."""
        from rich.markup import escape

        if self._console.is_terminal:
            front = front_line(self._measured)
            self._status.update(escape(f"{text}{front and chr(10) + front}"))
        elif self._clock() - self._said >= SILENCE_S:
            self._print(escape(text))

    def _remember(self, outcome: Outcome) -> None:
        from diffopt.bench.evaluate import Measured

        if isinstance(outcome, Measured):
            self._measured.append(outcome)

    def _say_why(self, outcome: Outcome) -> None:
        """Say what keeps a program from the next stronger tier."""
        from diffopt.bench.evaluate import Measured, Thresholds

        missing = Thresholds().missing(outcome.fidelity) if isinstance(outcome, Measured) else ""
        if missing:
            self._console.print(f"         {missing}", style="dim")


def front_line(outcomes: Sequence[Measured], most: int = 6) -> str:
    """Return the programs that none is better than, fastest first, in one line; empty where there are none."""
    import numpy as np

    from diffopt.search.goals import objectives
    from diffopt.search.selection import front

    if not outcomes:
        return ""
    best = front(np.array([objectives(o) for o in outcomes]), np.zeros(len(outcomes)))
    fastest = sorted((outcomes[i] for i in best), key=lambda outcome: -outcome.latency.ratio)
    shown = "  ".join(f"{o.latency.ratio:.1f}x {o.fidelity.psnr_median:.0f} dB" for o in fastest[:most])
    more = f"  and {len(fastest) - most} more" if len(fastest) > most else ""
    return f"front  {shown}{more}"


def say_assumed(module: ModuleOp) -> None:
    """Say on standard error what was read though the source does not prove it."""
    from diffopt.ir.description import assumptions_of

    for assumption in assumptions_of(module):
        sys.stderr.write(f"{assumption}\n")


def describe(outcome: Outcome) -> str:
    """Return an outcome as one short line of fixed width."""
    from diffopt.bench.evaluate import Measured

    if not isinstance(outcome, Measured):
        return f"{outcome.kind:>8}: {' '.join(outcome.message.split())[:60]}"
    latency, fidelity = outcome.latency, outcome.fidelity
    idle = f" (did nothing: {', '.join(outcome.inactive)})" if outcome.inactive else ""
    return (
        f"{latency.ratio:6.2f}x [{latency.lo:.2f}, {latency.hi:.2f}]  {fidelity.psnr_median:5.1f} dB"
        f"  {outcome.tier:<7}{idle}"
    )


def short(trace: str) -> str:
    """Return a trace without quotes, for people."""
    return trace.replace('"', "") or "baseline"


def print_lines(lines: list[str]) -> None:
    """Print results on standard output."""
    sys.stdout.write("\n".join(lines) + "\n")
