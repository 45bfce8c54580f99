"""Guide only the first steps; run the conditional half alone after them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import ControlOp, DenoiseOp, denoise_loop, loops, only_plain, steps_of, to_attribute
from diffopt.passes.base import DiffusionPass, Example, Family, Refusal, Tier
from diffopt.passes.steps.solvers import asks_twice


@dataclass(frozen=True)
class GuidanceWindow(DiffusionPass):
    """Guide only the first steps; run the conditional half alone after them.

    What it does: splits the denoise loop at `stop` and leaves the unconditional call out of the second part, which
    halves the denoiser's batch there. With `stop=0` the unconditional branch is dead and removed altogether.
    When it helps: with classifier-free guidance, where late steps fix detail rather than content.
    Refuses when: there is no guidance, it is windowed already, the window rounds to all of the steps, or to none
    although `stop` is not 0, the call is more than a plain loop (a ControlNet beside a UNet is not), or the scheduler asks
    the denoiser twice a step.
    What it costs: tier traded; near for a `stop` close to 1.
    References: limited-interval guidance arXiv 2404.07724; adaptive guidance arXiv 2312.12487.
    """

    name = "guidance-window"
    family = Family.GUIDANCE
    tier = Tier.TRADED
    examples = (
        Example("guidance-window{stop=0.6}", expect="diffusion.denoise @scheduler steps 30 to 50 from"),
        Example("guidance-window{stop=0}", expect="diffusion.denoise @scheduler steps 0 to 50 from"),
        Example("guidance-window{stop=0.999}", refusal="covers all 50 steps"),
        Example("guidance-window,guidance-window", refusal="windowed already"),
    )
    one_of = "guidance-plan"

    stop: float = 0.6

    def check_options(self) -> None:
        self.require(0.0 <= self.stop < 1.0, "stop", "a fraction of the steps, from 0 to below 1")

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        steps, seen = steps_of(module), set[int]()
        for stop in (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3):
            if 0 < round(stop * steps) < steps and round(stop * steps) not in seen:
                seen.add(round(stop * steps))
                yield cls(stop=stop)

    def refuse(self, module: ModuleOp) -> Refusal | None:
        found, steps = loops(module), steps_of(module)
        if not any(loop.guide for loop in found):
            return Refusal("there is no classifier-free guidance", "diffusion.denoise", "needs-guidance")
        if why := only_plain(module, controls=True):
            return Refusal(f"{why}: a window over that is not made yet", "diffusion.denoise", "wrong-kind")
        if len(found) > 1:
            return Refusal("the guidance is windowed already", "diffusion.denoise", "one-window")
        if self.stop > 0 and round(self.stop * steps) == 0:
            return Refusal(f"a window up to {self.stop:g} holds none of {steps} steps", "diffusion.denoise")
        if round(self.stop * steps) >= steps:
            return Refusal(f"a window up to {self.stop:g} covers all {steps} steps", "diffusion.denoise")
        return asks_twice(module)

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        (loop,) = loops(op)
        cut, steps = round(self.stop * steps_of(op)), steps_of(op)
        block, guide = loop.parent_block(), loop.guide
        if block is None or guide is None:
            raise ValueError("guidance-window was applied to a module it refuses")
        # The operand of `guide` that is scaled up is the conditional one, by the op's definition.
        conditional = next(p for p in loop.predicts if p.result is guide.cond)
        scheduler, denoiser = (s.component.root_reference.data for s in (loop, conditional))
        asked = [value.owner for value in conditional.conditions if isinstance(value.owner, ControlOp)]
        given = tuple(value for value in conditional.conditions if not isinstance(value.owner, ControlOp))
        controls = [(control.component.root_reference.data, control.image) for control in asked]
        tail = denoise_loop(scheduler, denoiser, cut, steps, loop.result, (given,), None, controls=controls)
        tail.predicts[0].set_reuse(conditional.reuse)
        tail.attributes["origin"] = to_attribute(self.name)
        _insert_after(loop, tail)
        if cut:
            loop.set_bounds(0, cut)
            if guide.fresh_steps is not None and guide.reuse is not None:
                guide.set_fresh_steps([step for step in guide.fresh_steps if step < cut], guide.reuse.data)
            return
        loop.result.replace_all_uses_with(loop.initial)
        block.erase_op(loop)


def _insert_after(loop: DenoiseOp, tail: DenoiseOp) -> None:
    block = loop.parent_block()
    if block is None:
        raise ValueError("a denoise loop stands in a function")
    loop.result.replace_uses_with_if(tail.result, lambda use: use.operation is not tail)
    block.insert_op_after(tail, loop)
