"""Reuse the deep features of the UNet for some steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import denoiser_of, steps_of
from diffopt.ir.reuse import Reuse
from diffopt.passes.base import DiffusionPass, Example, Family, Refusal, Tier
from diffopt.passes.caching.schedule import Schedule, full_steps, mark, refuse_schedule, up_blocks


@dataclass(frozen=True)
class CacheFeatures(DiffusionPass):
    """Reuse the deep features of the UNet for some steps.

    What it does: marks one step in `interval` as full, after the first `warm` ones; the steps between run only the
    blocks above `branch` and take the deeper features from the last full step. With `schedule` early or late, full
    steps crowd at that end. The schedule is static: an export makes two engines of it, full and shallow, or folds it
    into a whole-pipeline engine.
    When it helps: with many steps, where features change slowly, and with most of the cost in the deep blocks.
    Refuses when: the denoiser is no UNet, its features are cached, cast or offloaded by layers already, the steps
    are too few, or the call is more than one denoiser over one whole schedule (a ControlNet beside it is not).
    What it costs: tier traded; near at an interval of 2 or 3 of 50 steps.
    References: DeepCache arXiv 2312.00858, uniform and non-uniform.
    """

    name = "cache-features"
    family = Family.CACHING
    tier = Tier.TRADED
    examples = (
        Example("reduce-steps{steps=6},cache-features{interval=3}", expect="full at [0, 3] branch 0"),
        Example("reduce-steps{steps=12},cache-features{schedule=early}", expect="full at [0, 1, 4, 7] branch 0"),
        Example("reduce-steps{steps=12},cache-features{interval=4 warm=3}", expect="full at [0, 1, 2, 3, 7, 11]"),
        Example("cache-features,cache-features", refusal="cached already"),
        Example("export,cache-features{interval=5}", expect="full at [0, 5, 10, 15, 20, 25, 30, 35, 40, 45] branch 0"),
    )
    one_of = "feature-cache"
    architectures = ("unet",)

    interval: int = 3
    branch: int = 0
    schedule: Schedule = "uniform"
    warm: int = 0

    def check_options(self) -> None:
        self.require(2 <= self.interval <= 20, "interval", "from 2 to 20")
        self.require(0 <= self.branch <= 3, "branch", "from 0 to 3")
        self.require(0 <= self.warm <= 100, "warm", "from 0 to 100")

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        seen = set[tuple[int, ...]]()
        schedules: tuple[Schedule, ...] = ("uniform", "early", "late")
        for schedule in schedules:
            for interval in (2, 3, 4, 5):
                full = full_steps(steps_of(module), interval, schedule)
                if interval < steps_of(module) and full not in seen:
                    seen.add(full)
                    yield cls(interval=interval, schedule=schedule)

    def refuse(self, module: ModuleOp) -> Refusal | None:
        denoiser, steps = denoiser_of(module), steps_of(module)
        where = f"@{denoiser.sym_name.data}"
        if not denoiser.class_name.data.endswith(".UNet2DConditionModel"):
            return Refusal(f"{denoiser.class_name.data} is no UNet2DConditionModel", where, "wrong-kind")
        if self.interval >= steps:
            return Refusal(f"an interval of {self.interval} does not fit into {steps} steps", where)
        if self.branch >= up_blocks(module) - 1:
            return Refusal(f"branch {self.branch} is below all of the {up_blocks(module)} up blocks but one", where)
        if self.warm >= steps:
            return Refusal(f"the first {self.warm} of {steps} steps are all of them", where)
        return refuse_schedule(module, self._full(module), controls=True)

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        mark(op, Reuse(self._full(op), self.branch), self.name)

    def _full(self, module: ModuleOp) -> tuple[int, ...]:
        return full_steps(steps_of(module), self.interval, self.schedule, self.warm)
