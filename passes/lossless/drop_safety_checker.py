"""Return images without looking at them first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import components
from diffopt.passes.base import DiffusionPass, Example, Family, Refusal, Tier


@dataclass(frozen=True)
class DropSafetyChecker(DiffusionPass):
    """Return images without looking at them first.

    What it does: takes the safety checker out, which runs a CLIP vision model over every image and blackens some.
    When it helps: in time and memory, by that model; never done unless you ask, for what it does is not the compiler's to
    decide.
    Refuses when: the pipeline has no safety checker.
    What it costs: tier exact for all images that would have passed; those that would not are shown. Read the license of
    your model.
    References: diffusers, `StableDiffusionSafetyChecker`.
    """

    name = "drop-safety-checker"
    family = Family.LOSSLESS
    tier = Tier.EXACT
    examples = (
        Example("drop-safety-checker", expect='diffusion.transform "drop_safety_checker"', model="adapted"),
        Example("drop-safety-checker", refusal="has no safety checker"),
    )
    one_of = "safety-checker"
    on_request = True

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        yield from ()

    def refuse(self, module: ModuleOp) -> Refusal | None:
        pipeline = components(module)["pipeline"]
        if "safety_checker" not in components(module):
            return Refusal("the pipeline has no safety checker", "@pipeline", "wrong-kind")
        done = any(transform.transform.data == "drop_safety_checker" for transform in pipeline.transforms)
        return Refusal("the safety checker is out already", "@pipeline", "one-of") if done else None

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        components(op)["pipeline"].add_transform("drop_safety_checker", {}, self.name)
