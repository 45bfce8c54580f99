"""Where the time of a pipeline goes, from its load to every step of a call, mapped to the lines of the script."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from diffopt.bench.statistics import median
from diffopt.ir.description import spans_of
from diffopt.ir.errors import DiffoptError
from diffopt.sources import lift


@dataclass(frozen=True)
class Part:
    """One part: its seconds, its share of a call (None outside it), and the line it comes from ("" where none does)."""

    name: str
    seconds: float
    share: float | None
    where: str
    detail: str = ""


@dataclass(frozen=True)
class Profile:
    """Where the time of a pipeline goes here."""

    source: str
    parts: tuple[Part, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {"ok": True, "source": self.source, "parts": [asdict(part) for part in self.parts]}


def profile_source(
    source: str,
    *,
    settings: Mapping[str, str] | None = None,
    passes: str = "",
    runs: int = 5,
    prompt: str | None = None,
) -> Profile:
    """Lift a source, run the pipeline it comes to here, and time its parts.

    Args:
        passes: to apply first.
        runs: calls whose median counts, after three others.
        prompt: what to draw; by default a plain caption, or one of the built-in model's.

    Raises:
        DiffoptError: the source cannot be lifted, or its model is not here.
    """
    from diffopt.bench.fit import load_emitted
    from diffopt.bench.stages import AROUND, step_times
    from diffopt.bench.workload import DEFAULT_PROMPTS
    from diffopt.passes.pipeline import Trace, applied
    from diffopt.session import model_directory

    if runs < 1:
        raise DiffoptError("one call at least has to be timed", where="--runs")
    lifted = lift(source, settings or {})
    model_directory(lifted.module)
    module = applied(Trace.parse(passes), lifted.module) if passes else lifted.module
    if prompt is None:
        prompt = lifted.builtin.prompts("search", 1)[0] if lifted.builtin is not None else DEFAULT_PROMPTS[0]
    started = time.perf_counter()
    pipe = load_emitted(module)
    load_s = time.perf_counter() - started
    started = time.perf_counter()
    pipe(prompt)
    first_s = time.perf_counter() - started
    stages = step_times(pipe, lambda: pipe(prompt), runs=runs)
    total = sum(stage.seconds for stage in stages)
    lines = {role: f"{span.file}:{span.line}" for role, span in spans_of(lifted.module).items()}
    parts = [
        Part("load", load_s, None, lines.get("construct", "")),
        Part("first call", first_s, None, lines.get("call", "")),
        Part("call", total, 1.0, lines.get("call", ""), f"median of {runs}"),
    ]
    for stage in stages:
        steps = stage.calls
        detail = ""
        if len(steps) > 1:
            detail = (
                f"{len(steps)} calls: {1e3 * steps[0]:.1f} ms the first, {1e3 * median(steps[1:]):.1f} ms the others"
            )
        role = "steps" if len(steps) > 1 else "call"
        where = "" if stage.name == AROUND else lines.get(role, lines.get("call", ""))
        parts.append(Part(f"  {stage.name}", stage.seconds, stage.seconds / total if total else 0.0, where, detail))
    return Profile(source, tuple(parts))


def profile_lines(found: Profile) -> list[str]:
    """Return a profile as a table for people."""
    rows = [f"{'part':<18}{'ms':>10}{'share':>8}  {'line':<28} "]
    for part in found.parts:
        share = f"{100 * part.share:.1f} %" if part.share is not None else ""
        rows.append(f"{part.name:<18}{1e3 * part.seconds:>10.1f}{share:>8}  {part.where:<28} {part.detail}".rstrip())
    return rows
