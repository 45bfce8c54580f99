"""Reuse the deep features of the UNet for some steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import denoiser_of, loops, only_plain, steps_of, to_attribute
from diffopt.passes.base import DiffusionPass, Example, Family, Refusal, Tier


@dataclass(frozen=True)
class CacheFeatures(DiffusionPass):
    """Reuse the deep features of the UNet for some steps.

    What it does: marks every `interval`-th step as full; the steps between run only the blocks above `branch` and
    take the deeper features from the last full step. The schedule is static: an export makes two engines of it, full
    and shallow, or folds it into a whole-pipeline engine.
    When it helps: with many steps, where features change slowly, and with most of the cost in the deep blocks.
    Refuses when: the denoiser is no UNet, its features are cached already, or the steps are too few.
    What it costs: tier traded; near at an interval of 2 or 3 of 50 steps.
    References: DeepCache arXiv 2312.00858.
    """

    name = "cache-features"
    family = Family.CACHING
    tier = Tier.TRADED
    examples = (
        Example("reduce-steps{steps=6},cache-features{interval=3}", expect="full at [0, 3] branch 0"),
        Example("cache-features,cache-features", refusal="cached already"),
        Example("export,cache-features{interval=5}", expect="full at [0, 5, 10, 15, 20, 25, 30, 35, 40, 45] branch 0"),
    )
    one_of = "feature-cache"
    architectures = ("unet",)

    interval: int = 3
    branch: int = 0

    def check_options(self) -> None:
        self.require(2 <= self.interval <= 20, "interval", "from 2 to 20")
        self.require(0 <= self.branch <= 3, "branch", "from 0 to 3")

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        for interval in (2, 3, 4, 5):
            if interval < steps_of(module):
                yield cls(interval=interval)

    def refuse(self, module: ModuleOp) -> Refusal | None:
        denoiser = denoiser_of(module)
        where = f"@{denoiser.sym_name.data}"
        if not denoiser.class_name.data.endswith(".UNet2DConditionModel"):
            return Refusal(f"{denoiser.class_name.data} is no UNet2DConditionModel", where, "wrong-kind")
        if why := only_plain(module):
            return Refusal(f"{why}: features are not cached over that yet", "diffusion.denoise", "wrong-kind")
        if any(predict.full is not None for loop in loops(module) for predict in loop.predicts):
            return Refusal("the features are cached already", where, "one-cache")
        if self.interval >= steps_of(module):
            return Refusal(f"an interval of {self.interval} does not fit into {steps_of(module)} steps", where)
        blocks = denoiser.config.get("up_block_types")
        if isinstance(blocks, list) and self.branch >= len(blocks) - 1:
            return Refusal(f"branch {self.branch} is below all of the {len(blocks)} up blocks but one", where)
        return None

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        full = range(0, steps_of(op), self.interval)
        for loop in loops(op):
            for predict in loop.predicts:
                predict.set_full_steps(full, self.branch)
                predict.attributes["origin"] = to_attribute(self.name)
