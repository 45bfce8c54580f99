"""A workload envelope: the sizes and batches that a program is for, beside the pipeline's own size at batch 1."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from diffopt.bench.outcome import Measured
from diffopt.bench.workload import Workload
from diffopt.events import Listener, Stage, silence
from diffopt.finals import Final, choose, holds
from diffopt.ir.description import vae_scale
from diffopt.ir.dialect import components
from diffopt.ir.errors import DiffoptError
from diffopt.search.goals import shortfalls

if TYPE_CHECKING:
    from xdsl.dialects.builtin import ModuleOp

    from diffopt.bench.evaluate import Evaluator, Outcome
    from diffopt.ir.description import JSON
    from diffopt.ir.rewrite import Rewriter
    from diffopt.search.goals import Constraints
    from diffopt.search.store import Store

LARGEST, LARGEST_BATCH = 8192, 256
PROMPTS = 16
"""Held-out prompts at each point beyond the pipeline's own; that one gets all of them."""

Everywhere = Callable[[str], "dict[Point, Outcome]"]
"""Measures a trace at the points of an envelope."""


@dataclass(frozen=True)
class Point:
    """Pixels of an image, and prompts of a call."""

    height: int
    width: int
    batch: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}, batch {self.batch}"


@dataclass(frozen=True)
class Envelope:
    """What is asked for beside the pipeline's own size at batch 1.

    Args:
        sizes: heights and widths in pixels.
        batches: prompts of a call.
    """

    sizes: tuple[tuple[int, int], ...] = ()
    batches: tuple[int, ...] = ()

    @classmethod
    def parse(cls, sizes: str | None, batches: str | None) -> Envelope:
        """Read sizes such as `96x64,128x128` (width before height) and batches such as `1,4`.

        Raises:
            DiffoptError: they are none.
        """
        found: list[tuple[int, int]] = []
        for text in sizes.split(",") if sizes is not None else ():
            match = re.fullmatch(r"([0-9]{1,4})x([0-9]{1,4})", text.strip().lower())
            width, height = map(int, match.groups()) if match is not None else (0, 0)
            if not (0 < width <= LARGEST and 0 < height <= LARGEST):
                raise DiffoptError(f"{text.strip()!r} is no size", where="--sizes", hint="write 512x512,768x512")
            found.append((height, width))
        counts: list[int] = []
        for text in batches.split(",") if batches is not None else ():
            number = text.strip()
            if not re.fullmatch("[0-9]{1,3}", number) or not 0 < int(number) <= LARGEST_BATCH:
                raise DiffoptError(f"{number!r} is no batch", where="--batches", hint="write 1,4")
            counts.append(int(number))
        return cls(tuple(dict.fromkeys(found)), tuple(dict.fromkeys(counts)))

    def on(self, module: ModuleOp) -> ModuleOp:
        """Return a copy of a lifted module that says which sizes engines are to be built for.

        Raises:
            DiffoptError: the pipeline's own size is not known, or is not an argument of its call, or the VAE cannot draw a size.
        """
        own = _own(module)
        self._fits(module)
        extra: list[JSON] = [list(size) for size in self.sizes if size != own]
        if not extra:
            return module
        changed = module.clone()
        components(changed)["pipeline"].set_value("sizes", extra)
        return changed

    def _fits(self, module: ModuleOp) -> None:
        vae = components(module).get("vae")
        factor = (vae_scale(vae.config) if vae is not None else None) or 1
        for height, width in self.sizes:
            if height % factor or width % factor:
                reason = f"{width}x{height} cannot be drawn: the VAE makes sides that are multiples of {factor}"
                raise DiffoptError(reason, where="--sizes")

    def points(self, module: ModuleOp) -> tuple[Point, ...]:
        """Return the points beside the pipeline's own size at batch 1."""
        own = _own(module)
        found = [
            Point(height, width, batch)
            for height, width in dict.fromkeys([own, *self.sizes])
            for batch in dict.fromkeys([1, *self.batches])
        ]
        return tuple(found[1:])


def module_at(module: ModuleOp, point: Point) -> ModuleOp:
    """Return a module whose calls are of a point's size; the engines are for the same sizes as before."""
    own = _own(module)
    changed = module.clone()
    pipeline = components(changed)["pipeline"]
    listed = pipeline.values.get("sizes")
    pipeline.set_value("height", point.height)
    pipeline.set_value("width", point.width)
    if isinstance(listed, list):
        every: list[JSON] = [[*own], *listed]
        pipeline.set_value("sizes", [size for size in every if size != [point.height, point.width]])
    return changed


def workload_at(work: Workload, point: Point) -> Workload:
    """Return the workload of a point: the first of the held-out prompts, and the search's as they are."""
    heldout = work.heldout[:PROMPTS]
    return replace(work, heldout=heldout, height=point.height, width=point.width, batch=point.batch)


def measured_at(
    points: Sequence[Point],
    trace: str,
    evaluator_at: Callable[[Point, ModuleOp], AbstractContextManager[Evaluator]],
    store: Store,
    module: ModuleOp,
    listen: Listener,
    rewriter: Rewriter | None = None,
) -> dict[Point, Outcome]:
    """Measure a trace against the baseline at each point, on held-out prompts; what is in the store is not done again.

    Args:
        evaluator_at: makes an evaluator of the baseline at a point, from the module whose calls are of its size.
    """
    from diffopt.session import Judge

    found = {}
    for point in points:
        there = module_at(module, point)
        with evaluator_at(point, there) as evaluator:
            judge = Judge(evaluator, store, there, listen, run=f"envelope {point}", rewriter=rewriter)
            found[point] = judge(trace, str(point))
    return found


def choose_everywhere(
    finals: Sequence[Final], goal: Constraints, everywhere: Everywhere, listen: Listener = silence
) -> tuple[Final | None, dict[Point, Outcome]]:
    """Return the best final that meets the goal at every point too, and its outcomes there."""
    left = list(finals)
    while (best := choose(left, goal)) is not None and best.candidate is not None:
        found = everywhere(best.candidate.trace)
        if all(holds(goal, outcome, best.candidate) for outcome in found.values()):
            return best, found
        for point, outcome in found.items():
            if isinstance(outcome, Measured) and (reasons := shortfalls(goal, outcome, best.candidate.facts)):
                listen(Stage(f"not at {point}: {'; '.join(reasons)}"))
        key = best.candidate.key
        left = [final for final in left if final.candidate is None or final.candidate.key != key]
    return None, {}


def envelope_json(found: Mapping[Point, Outcome]) -> list[dict[str, Any]]:
    """Return the outcomes at the points for the manifest."""
    return [
        {"height": p.height, "width": p.width, "batch": p.batch, "outcome": outcome.to_json()}
        for p, outcome in found.items()
    ]


def _own(module: ModuleOp) -> tuple[int, int]:
    values = components(module)["pipeline"].values
    names, height, width = values.get("call"), values.get("height"), values.get("width")
    given = not isinstance(names, dict) or {"height", "width"} <= names.keys()
    if not given or not isinstance(height, int) or not isinstance(width, int):
        raise DiffoptError("the pipeline's call takes no size that is known", where="--sizes", hint="leave it out")
    return height, width
