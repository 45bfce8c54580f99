"""Run in full where features have moved too far, by what was measured on this checkpoint and scheduler."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import denoiser_of, steps_of
from diffopt.ir.reuse import Reuse
from diffopt.passes.base import DiffusionPass, Example, Family, Refusal, Tier
from diffopt.passes.caching.schedule import block_count, mark, numbers, refuse_schedule, steps_by_drift


@dataclass(frozen=True)
class CacheAdaptive(DiffusionPass):
    """Run in full where features have moved too far, by what was measured on this checkpoint and scheduler.

    What it does: adds up `drift`, how far cached features move on each step relative to their size, and marks a step
    as full where the sum since the last one passes `threshold`, or `longest` steps in a row have reused features. The
    outcome is a static schedule, as that of cache-features on a UNet and cache-blocks on a transformer.
    `python -m diffopt.bench.fit drift MODEL --steps N` measures the drift in one run of the pipeline and prints this
    pass with it; without, every step counts the same, and the schedule is uniform.
    When it helps: where features move fast at one end of the schedule and hardly at the other.
    Refuses when: the drift was measured at another number of steps, nothing or all would be cached, the features
    are cached already, half-precision casts them, or the call is more than one denoiser over one whole schedule.
    What it costs: tier traded; the measured run, once. It stands where MagCache and TeaCache do: one measured number a step
    decides, here when the code is written, there (native-cache{kind=mag}) as it runs.
    References: MagCache arXiv 2506.09045, TeaCache arXiv 2411.19108; EasyCache arXiv 2507.02860.
    """

    name = "cache-adaptive"
    family = Family.CACHING
    tier = Tier.TRADED
    examples = (
        Example(
            'reduce-steps{steps=6},cache-adaptive{drift="0.5,0.4,0.1,0.1,0.1" threshold=0.2}',
            expect="full at [0, 1, 2, 5] branch 0",
        ),
        Example("reduce-steps{steps=6},cache-adaptive{threshold=0.4}", expect="full at [0, 3] branch 0"),
        Example('cache-adaptive{drift="0.5,0.4"}', refusal="measured for 3 steps"),
    )
    one_of = "feature-cache"
    excludes = MappingProxyType({"half-precision": "its passes call the layers behind the door that casts"})

    threshold: float = 0.1
    drift: str = ""
    longest: int = 5

    def check_options(self) -> None:
        self.require(0.0 < self.threshold <= 10.0, "threshold", "above 0 and up to 10")
        self.require(1 <= self.longest <= 50, "longest", "from 1 to 50")
        self.require(numbers(self.drift) is not None, "drift", "numbers from 0 up, parted by commas")

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        seen = set[tuple[int, ...]]()
        for threshold in (0.05, 0.1, 0.15, 0.2, 0.3, 0.4):
            made = cls(threshold=threshold)
            full = made._full(module)
            if 1 < len(full) < steps_of(module) and full not in seen:
                seen.add(full)
                yield made

    def refuse(self, module: ModuleOp) -> Refusal | None:
        measured, steps = len(numbers(self.drift) or ()) + 1, steps_of(module)
        if self.drift and measured != steps:
            return Refusal(f"the drift was measured for {measured} steps, and there are {steps}: measure it again")
        if steps == 1:
            return Refusal("one step has nothing to reuse", "diffusion.denoise")
        return refuse_schedule(module, self._full(module))

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        unet = denoiser_of(op).class_name.data.endswith(".UNet2DConditionModel")
        first = min(1, max(block_count(op) - 1, 0))
        reuse = Reuse(self._full(op), branch=0) if unet else Reuse(self._full(op), blocks=(first, 0))
        mark(op, reuse, self.name)

    def _full(self, module: ModuleOp) -> tuple[int, ...]:
        steps = steps_of(module)
        drift = numbers(self.drift) or (1 / steps,) * (steps - 1)
        return steps_by_drift(drift, self.threshold, self.longest)
