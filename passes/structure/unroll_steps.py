"""Unroll the denoise loop, and fold the schedule into constants."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, StringAttr

from diffopt.ir.dialect import DenoiseOp, loops, only_plain, to_attribute, unrolled
from diffopt.ir.errors import DiffoptError
from diffopt.passes.base import DiffusionPass, Example, Family, Refusal, Tier
from diffopt.passes.steps.solvers import asks_twice
from diffopt.passes.structure.schedule_weights import schedule_of, why_not


@dataclass(frozen=True)
class UnrollSteps(DiffusionPass):
    """Unroll the denoise loop, and fold the schedule into constants.

    What it does: makes of each loop as many as it has steps, each with its timestep, whether it is guided and what it
    reuses, and with the step itself as a sum of latents and predictions with constant weights. The weights are read off
    the scheduler, whose steps are linear: unit vectors go through it and show them. The emitted code steps by them, so
    that nothing is looked up, computed again or read back from the device inside the loop.
    When it helps: with small networks and many steps, where the scheduler's own Python and its many small operations
    count; on GPUs, where each value read on the host waits for the device; ahead of a whole-pipeline engine.
    Refuses when: the scheduler draws noise, clips, moves with the size of the image, asks twice a step or reaches back
    more than three steps, the call is more than a plain loop, or the steps are unrolled already.
    What it costs: tier exact but for the order of sums; the code holds a row of numbers a step. Requests at other steps
    are answered by the scheduler as before.
    References: loop unrolling and constant folding, as in any compiler; DDIM arXiv 2010.02502, DPM-Solver++ arXiv
    2211.01095 for what the weights are.
    """

    name = "unroll-steps"
    family = Family.STRUCTURE
    tier = Tier.EXACT
    examples = (
        Example("reduce-steps{steps=4},unroll-steps", expect="diffusion.denoise @scheduler steps 3 to 4 at 2.49"),
        Example(
            "reduce-steps{steps=4 solver=own},unroll-steps",
            expect="diffusion.denoise @scheduler steps 0 to 1 at 1.000000e+03 from",
            model="flow",
        ),
        Example("unroll-steps,guidance-window", refusal="must come before unroll-steps"),
        Example("reduce-steps{solver=unipc},unroll-steps", refusal="reach back further than 3 steps"),
    )
    after = ("family:steps", "family:guidance", "family:caching")
    excludes = MappingProxyType({"capture-step": "captured steps hold the schedule as a table already"})

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        yield cls()

    def refuse(self, module: ModuleOp) -> Refusal | None:
        if unrolled(module):
            return Refusal("the steps are unrolled already", "diffusion.denoise", "one-of")
        if why := only_plain(module):
            return Refusal(f"{why}: only a plain loop is unrolled", "diffusion.denoise", "wrong-kind")
        if (twice := asks_twice(module)) is not None:
            return twice
        why = why_not(module)
        return Refusal(why, "@scheduler", "wrong-kind") if why else None

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        found = schedule_of(op)
        if isinstance(found, str):
            raise DiffoptError(found, where=self.name, hint="leave unroll-steps out")
        times, weights = found
        for loop in loops(op):
            unroll_loop(loop, times, weights, self.name)


def unroll_loop(
    loop: DenoiseOp, times: tuple[float, ...], weights: tuple[tuple[float, ...], ...], origin_of: str
) -> None:
    """Put single steps in the place of a loop, each with its timestep and weights, as the work of the pass of this name."""
    block = loop.parent_block()
    if block is None:
        raise ValueError("a denoise loop stands in a function")
    latent = loop.initial
    origin = loop.attributes.get("origin")
    names = [origin.data] if isinstance(origin, StringAttr) else []
    for index in range(*loop.bounds):
        step = loop.clone()
        step.operands[0] = latent
        step.set_bounds(index, index + 1)
        step.set_timestep(times[index])
        for advance in step.steps:
            advance.set_constants(weights[index])
        step.attributes["origin"] = to_attribute(", ".join([*names, origin_of]))
        block.insert_op_before(step, loop)
        latent = step.result
    loop.result.replace_all_uses_with(latent)
    block.erase_op(loop)
