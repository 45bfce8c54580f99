"""Unrolled loops: what must hold of their steps, and what the emitted code is given of them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.description import JSON
from diffopt.ir.dialect import loops, stages, unrolled

REACH = 3
"""Steps that a weight may reach back: the highest order of a multistep solver that is unrolled."""


def unrolled_whole(module: ModuleOp) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with unrolled loops: all steps of the one stage are, each with a timestep and its weights."""
    if not unrolled(module):
        if any(step.constants is not None for loop in loops(module) for step in loop.steps):
            yield "a step has weights, and its loop no timestep", "diffusion.step"
        return
    found = loops(module)
    if len(stages(module)) > 1 or any(loop.timestep is None for loop in found):
        yield "some steps are unrolled and others are not", "diffusion.denoise"
    times = [loop.timestep for loop in found if loop.timestep is not None]
    if any(later >= earlier for earlier, later in pairwise(times)):
        yield "the timesteps of unrolled steps fall", "diffusion.denoise"
    for index, loop in enumerate(found):
        for step in loop.steps:
            weights = step.constants or ()
            if not weights or len(weights) % 2:
                yield "an unrolled step has a weight for each latent and one for each prediction", "diffusion.step"
            elif len(weights) > 2 * min(index + 1, REACH):
                yield f"step {index} reaches back further than there are steps", "diffusion.step"


def schedule_constants(module: ModuleOp) -> dict[str, JSON]:
    """Return timesteps and weights of each step, as the runtime function `unroll_steps` takes them; empty where none."""
    if not unrolled(module):
        return {}
    times: list[JSON] = [loop.timestep for loop in loops(module)]
    weights: list[JSON] = [list(step.constants or ()) for loop in loops(module) for step in loop.steps]
    return {"timesteps": times, "weights": weights}
