"""Which kinds of step a captured loop holds, and what lies in memory between them; pure, known before anything runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """One kind of step: the whole denoiser or its shallow part, for both halves of guidance or the conditional one."""

    full: bool = True
    guided: bool = True

    def __str__(self) -> str:
        return ("full" if self.full else "shallow") + ("" if self.guided else "-alone")


@dataclass(frozen=True)
class LoopPlan:
    """What each step of a request is.

    Args:
        kinds: one a step.
        order: derivatives that carry reused features on, 0 or 1.
        gaps: for each full step one over its distance to the full step before it, 0 for the first; 0 for the others.
        ahead: for each shallow step its distance to the last full step; 0 for the others.
    """

    kinds: tuple[Kind, ...]
    order: int
    gaps: tuple[float, ...]
    ahead: tuple[float, ...]

    @property
    def distinct(self) -> tuple[Kind, ...]:
        """The kinds that occur, in the order of their first steps: one captured graph each."""
        return tuple(dict.fromkeys(self.kinds))


def loop_plan(full: Sequence[bool], guided: Sequence[bool], *, order: int = 0) -> LoopPlan | str:
    """Return the plan of a loop, or why it cannot be captured."""
    if order > 1:
        return "features carried on by more than one derivative are not captured"
    if not full or not full[0]:
        return "the first step must be full"
    kinds = tuple(Kind(*pair) for pair in zip(full, guided, strict=True))
    first_alone = next((step for step, kind in enumerate(kinds) if not kind.guided), len(kinds))
    if any(kind.guided for kind in kinds[first_alone:]):
        return "guidance that comes back after it has ended is not captured"
    gaps, ahead, last = [0.0] * len(kinds), [0.0] * len(kinds), 0
    for step, kind in enumerate(kinds):
        if kind.full:
            gaps[step] = 1 / (step - last) if step else 0.0
            last = step
        else:
            ahead[step] = float(step - last)
    return LoopPlan(kinds, order, tuple(gaps), tuple(ahead))


def kept_bytes(
    latents: Sequence[int],
    conditions: Sequence[Sequence[int]],
    features: Sequence[Sequence[int]],
    *,
    depth: int,
    order: int,
    item: int,
) -> int:
    """Return the bytes of what lies still between the steps of a captured loop.

    Args:
        latents, conditions, features: shapes of the latents, of what the denoiser is given beside them, of what a full
            step leaves for shallow ones.
        depth: latents and outputs that the scheduler reads.
        order: derivatives of the features.
        item: bytes of a number.
    """  # fmt: skip
    kept = 2 * depth * math.prod(latents) + sum(map(math.prod, conditions))
    return item * (kept + (1 + order) * sum(map(math.prod, features)))
