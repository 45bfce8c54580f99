"""Do without classifier-free guidance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import loops, only_plain, to_attribute
from diffopt.passes.base import DiffusionPass, Example, Family, Refusal, Tier


@dataclass(frozen=True)
class GuidanceOff(DiffusionPass):
    """Do without classifier-free guidance.

    What it does: takes the guidance and the unconditional call out of the loop, and the encoding of the negative
    prompt with it, so that the pipeline is called with a scale of 1.
    When it helps: with weights that guidance is distilled into (LCM, Turbo, Lightning, Schnell), where a scale left on
    costs a second call and spoils the image; elsewhere as the far end of guidance-window.
    Refuses when: there is no guidance, its window is cut already, or the pipeline asks for the halves in turn.
    What it costs: tier traded; for weights that were not made for it, much of what the prompt says.
    References: classifier-free guidance arXiv 2207.12598; distillation of guided models arXiv 2210.03142.
    """

    name = "guidance-off"
    family = Family.GUIDANCE
    tier = Tier.TRADED
    examples = (
        Example("guidance-off", expect="diffusion.denoise @scheduler steps 0 to 50 from"),
        Example("guidance-off,guidance-off", refusal="no classifier-free guidance"),
        Example("guidance-window,guidance-off", refusal="windowed already"),
    )

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        yield cls()

    def refuse(self, module: ModuleOp) -> Refusal | None:
        found = loops(module)
        if not any(loop.guide for loop in found):
            return Refusal("there is no classifier-free guidance", "diffusion.denoise", "needs-guidance")
        if why := only_plain(module):
            return Refusal(f"{why}: its guidance is not taken out yet", "diffusion.denoise", "wrong-kind")
        if len(found) > 1:
            return Refusal("the guidance is windowed already", "diffusion.denoise", "one-window")
        return None

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for loop in loops(op):
            guide = loop.guide
            if guide is None:
                continue
            uncond = guide.uncond.owner
            guide.result.replace_all_uses_with(guide.cond)
            loop.body.block.erase_op(guide)
            for predict in loop.predicts:
                if predict is uncond:
                    loop.body.block.erase_op(predict)
            loop.attributes["origin"] = to_attribute(self.name)
