"""Ask for the two halves of guidance one after the other instead of in one batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, StringAttr, UnitAttr

from diffopt.ir.dialect import loops, only_plain, to_attribute
from diffopt.passes.base import DiffusionPass, Example, Family, Refusal, Tier
from diffopt.passes.steps.solvers import asks_twice


@dataclass(frozen=True)
class SplitGuidanceBatch(DiffusionPass):
    """Ask for the two halves of guidance one after the other instead of in one batch.

    What it does: cuts the doubled batch of a guided step in two and calls the denoiser for each half by itself.
    When it helps: where memory is short, where a batch of one is what an engine or a cache of the processor fits, and
    with guidance-window or reuse-unconditional, after which every call has one size, so that compiled code and CUDA
    graphs are made once.
    Refuses when: there is no guidance in one batch, its halves are apart already, the call is more than a plain
    loop, or the scheduler asks the denoiser twice a step.
    What it costs: exact but for the order of sums inside a kernel; on devices that a batch of one leaves idle, time.
    References: FasterCache arXiv 2410.19355, on what the two halves share.
    """

    name = "split-guidance-batch"
    family = Family.GUIDANCE
    tier = Tier.EXACT
    examples = (
        Example("split-guidance-batch", expect="by 2.000000e+00 apart"),
        Example("guidance-window{stop=0},split-guidance-batch", refusal="no classifier-free guidance"),
        Example("split-guidance-batch,split-guidance-batch", refusal="apart already"),
    )

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        yield cls()

    def refuse(self, module: ModuleOp) -> Refusal | None:
        guides = [loop.guide for loop in loops(module) if loop.guide is not None]
        if not guides:
            return Refusal("there is no classifier-free guidance", "diffusion.denoise", "needs-guidance")
        if any(guide.apart is not None or guide.in_turn is not None for guide in guides):
            return Refusal("the halves are apart already", "diffusion.guide", "in-turn")
        if why := only_plain(module):
            return Refusal(f"{why}: its batch is not split yet", "diffusion.denoise", "wrong-kind")
        return asks_twice(module)

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for guide in (loop.guide for loop in loops(op) if loop.guide is not None):
            before = guide.attributes.get("origin")
            names = [before.data] if isinstance(before, StringAttr) else []
            guide.properties["apart"] = UnitAttr()
            guide.attributes["origin"] = to_attribute(", ".join([*names, self.name]))
