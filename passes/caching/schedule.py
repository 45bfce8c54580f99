"""Static schedules of full steps, and what every pass that writes one refuses."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import (
    EmbeddingType,
    LatentType,
    ResidualsType,
    asks_more,
    denoiser_of,
    loops,
    scheduler_of,
    stages,
    steps_of,
    to_attribute,
)
from diffopt.ir.reuse import Reuse
from diffopt.passes.base import Refusal
from diffopt.passes.steps.solvers import asks_twice

Schedule = Literal["uniform", "early", "late"]
BEND = 1.5
"""How far full steps crowd at one end: the i-th of n stands at the fraction (i/n) ** 1.5."""


def full_steps(steps: int, interval: int, schedule: Schedule, warm: int = 0) -> tuple[int, ...]:
    """Return the full steps among `steps`: the first `warm`, then one in `interval`, evenly or crowded at one end."""
    rest = steps - warm
    count = -(-rest // interval)
    if schedule == "uniform":
        chosen = [warm + index * interval for index in range(count)]
    elif schedule == "early":
        chosen = [warm + int(rest * (index / count) ** BEND) for index in range(count)]
    else:
        chosen = [warm + int(rest * (1 - (1 - index / count) ** BEND)) for index in range(count)]
    return tuple(sorted({0, *range(warm), *chosen}))


def steps_by_drift(drift: Iterable[float], threshold: float, longest: int) -> tuple[int, ...]:
    """Return the full steps at which reused features would be further than `threshold` from the true ones.

    drift: for each step but the first, how far features move on it, relative to their size.
    longest: how many steps in a row may reuse.
    """
    full, moved = [0], 0.0
    for step, change in enumerate(drift, 1):
        moved += change
        if moved > threshold or step - full[-1] > longest:
            full.append(step)
            moved = 0.0
    return tuple(full)


def refuse_schedule(module: ModuleOp, full: tuple[int, ...], *, controls: bool = False) -> Refusal | None:
    """Return why the calls of the denoiser cannot follow a schedule, or this one.

    controls: whether what a ControlNet adds may be there.
    """
    where, steps = "diffusion.denoise", steps_of(module)
    if why := _several_loops(module, controls=controls):
        return Refusal(f"{why}: features are not cached over that yet", where, "wrong-kind")
    if any(predict.full is not None for loop in loops(module) for predict in loop.predicts):
        return Refusal("the features are cached already", f"@{denoiser_of(module).sym_name.data}", "one-cache")
    if (twice := asks_twice(module)) is not None:
        return twice
    if len(full) >= steps:
        return Refusal(f"all of the {steps} steps would run in full", where)
    return None


def mark(module: ModuleOp, reuse: Reuse, origin: str) -> None:
    """Let every call of the denoiser follow a schedule."""
    for loop in loops(module):
        for predict in loop.predicts:
            predict.set_reuse(reuse)
            predict.attributes["origin"] = to_attribute(origin)


def block_count(module: ModuleOp) -> int:
    """Return how many blocks a transformer says it has; 0 if it does not say."""
    config = denoiser_of(module).config
    counts = [config.get(key) for key in ("num_layers", "num_single_layers")]
    return sum(count for count in counts if isinstance(count, int))


def up_blocks(module: ModuleOp) -> int:
    """Return how many up blocks a UNet says it has; 4, the usual number, if it does not say."""
    blocks = denoiser_of(module).config.get("up_block_types")
    return len(blocks) if isinstance(blocks, list) else 4


def _several_loops(module: ModuleOp, *, controls: bool) -> str:
    """Return why a module is more than one denoiser asked over one whole schedule; empty for one that is not."""
    found = loops(module)
    if len(stages(module)) > 1:
        return "the call has several stages"
    if any(loop.side is not None for loop in found):
        return "the loops divide the schedule between experts"
    if found[0].bounds[0] != 0:
        return f"the call starts at step {found[0].bounds[0]} of the schedule"
    if steps_of(module) != scheduler_of(module).values.get("steps"):
        return "the call ends before its schedule does"
    if asks_more(module, controls=controls):
        return "the loop asks more than the denoiser"
    for predict in (predict for loop in found for predict in loop.predicts):
        if predict.sample.type != LatentType():
            return "the latent is not of an image"
        if any(not isinstance(value.type, EmbeddingType | ResidualsType) for value in predict.conditions):
            return "the denoiser is given more than embeddings"
    return ""


def numbers(text: str) -> tuple[float, ...] | None:
    """Read numbers parted by commas; `None` if the text is anything else."""
    try:
        found = tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        return None
    return found if all(number >= 0 and math.isfinite(number) for number in found) else None
