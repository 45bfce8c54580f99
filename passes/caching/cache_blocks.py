"""Reuse what the middle blocks of a transformer add, for some steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import steps_of
from diffopt.ir.reuse import Reuse
from diffopt.passes.base import DiffusionPass, Example, Family, Refusal, Tier
from diffopt.passes.caching.schedule import Schedule, block_count, full_steps, mark, refuse_schedule


@dataclass(frozen=True)
class CacheBlocks(DiffusionPass):
    """Reuse what the middle blocks of a transformer add, for some steps.

    What it does: marks one step in `interval` as full, after the `warm` first ones; the steps between run the `first`
    and `last` blocks alone and add what the blocks between added to the hidden states at the last full step. The
    decision is a static schedule, so nothing is computed or compared to take it, and it compiles.
    When it helps: with many steps; most of a transformer's cost is in its middle blocks.
    Refuses when: the denoiser is no transformer, its features are cached already, its blocks or steps are too few,
    or the call is more than one denoiser over one whole schedule.
    What it costs: tier traded; near at an interval of 2 of 50 steps.
    References: FBCache (ParaAttention), DBCache (cache-dit), FORA arXiv 2407.01425.
    """

    name = "cache-blocks"
    family = Family.CACHING
    tier = Tier.TRADED
    examples = (
        Example(
            "reduce-steps{steps=8 solver=own},cache-blocks",
            expect="full at [0, 1, 4, 7] blocks 1 0",
            model="flow",
        ),
        Example("cache-blocks{first=2 last=2}", refusal="leave none to reuse", model="flow"),
        Example("cache-blocks", refusal="is for transformers"),
    )
    one_of = "feature-cache"
    architectures = ("transformer",)

    interval: int = 3
    first: int = 1
    last: int = 0
    schedule: Schedule = "uniform"
    warm: int = 1

    def check_options(self) -> None:
        self.require(2 <= self.interval <= 20, "interval", "from 2 to 20")
        self.require(0 <= self.first <= 16, "first", "from 0 to 16")
        self.require(0 <= self.last <= 16, "last", "from 0 to 16")
        self.require(0 <= self.warm <= 100, "warm", "from 0 to 100")

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        seen = set[tuple[object, ...]]()
        for interval in (2, 3, 4, 5):
            for first in (1, 2):
                entry = (full_steps(steps_of(module), interval, "uniform", 1), first)
                if interval < steps_of(module) and first < block_count(module) and entry not in seen:
                    seen.add(entry)
                    yield cls(interval=interval, first=first)

    def refuse(self, module: ModuleOp) -> Refusal | None:
        count, steps = block_count(module), steps_of(module)
        if count and self.first + self.last >= count:
            return Refusal(f"of {count} blocks, {self.first} first and {self.last} last ones leave none to reuse")
        if self.warm >= steps:
            return Refusal(f"the first {self.warm} of {steps} steps are all of them")
        return refuse_schedule(module, self._full(module))

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        mark(op, Reuse(self._full(op), blocks=(self.first, self.last)), self.name)

    def _full(self, module: ModuleOp) -> tuple[int, ...]:
        return full_steps(steps_of(module), self.interval, self.schedule, self.warm)
