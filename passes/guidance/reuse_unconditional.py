"""Compute the unconditional half of guidance every few steps only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Self

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import loops, only_plain, to_attribute
from diffopt.passes.base import DiffusionPass, Example, Family, Refusal, Tier
from diffopt.passes.steps.solvers import asks_twice


@dataclass(frozen=True)
class ReuseUnconditional(DiffusionPass):
    """Compute the unconditional half of guidance every few steps only.

    What it does: of the guided steps, the `warm` first ones and one in `every` after them compute both halves; the
    others run the conditional half alone and take over from the last the `difference` between the halves, or the
    unconditional `prediction` itself.
    When it helps: with classifier-free guidance in one batch, on the steps that guidance-window leaves guided; the two
    halves differ by less, and more slowly, than either changes.
    Refuses when: there is no guidance in one batch, too few steps are guided, the half is reused already, the call
    is more than a plain loop, or the scheduler asks the denoiser twice a step.
    What it costs: tier traded; near for every second step.
    References: FasterCache arXiv 2410.19355; compress guidance arXiv 2408.11194; adaptive guidance arXiv 2312.12487.
    """

    name = "reuse-unconditional"
    family = Family.GUIDANCE
    tier = Tier.TRADED
    examples = (
        Example("reduce-steps{steps=6},reuse-unconditional", expect="by 2.000000e+00 fresh at [0, 2, 4] difference"),
        Example("guidance-window{stop=0.1},reuse-unconditional{every=3}", expect="fresh at [0, 3] difference"),
        Example("guidance-window{stop=0},reuse-unconditional", refusal="no classifier-free guidance"),
        Example("reuse-unconditional,reuse-unconditional", refusal="reused already"),
    )

    every: int = 2
    reuse: Literal["difference", "prediction"] = "difference"
    warm: int = 0

    def check_options(self) -> None:
        self.require(2 <= self.every <= 20, "every", "from 2 to 20")
        self.require(0 <= self.warm <= 100, "warm", "from 0 to 100")

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        guided = _guided_steps(module)
        for every in (2, 3, 4, 5):
            if every < guided:
                yield cls(every=every)
                yield cls(every=every, reuse="prediction")

    def refuse(self, module: ModuleOp) -> Refusal | None:
        where, guided = "diffusion.denoise", _guided_steps(module)
        if guided == 0:
            return Refusal("there is no classifier-free guidance", where, "needs-guidance")
        if why := only_plain(module):
            return Refusal(f"{why}: its unconditional half is not reused yet", where, "wrong-kind")
        if any(loop.guide.fresh is not None for loop in loops(module) if loop.guide is not None):
            return Refusal("the unconditional half is reused already", where, "one-reuse")
        if self.warm + 1 >= guided:
            return Refusal(f"{guided} guided steps leave none to reuse the half", where)
        return asks_twice(module)

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for loop in loops(op):
            if loop.guide is not None:
                start, stop = loop.bounds
                warm = min(start + self.warm, stop)
                fresh = sorted({start, *range(start, warm), *range(warm, stop, self.every)})
                loop.guide.set_fresh_steps(fresh, self.reuse)
                loop.guide.attributes["origin"] = to_attribute(self.name)


def _guided_steps(module: ModuleOp) -> int:
    return sum(loop.bounds[1] - loop.bounds[0] for loop in loops(module) if loop.guide is not None)
