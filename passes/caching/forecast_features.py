"""Carry cached features on by a Taylor series instead of taking them as they were."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import loops
from diffopt.passes.base import DiffusionPass, Example, Family, Refusal, Tier
from diffopt.passes.caching.schedule import mark


@dataclass(frozen=True)
class ForecastFeatures(DiffusionPass):
    """Carry cached features on by a Taylor series instead of taking them as they were.

    What it does: steps between full ones take features carried on from the last full steps, by as many derivatives as
    `order`, which are differences between full steps. The coefficients follow from the schedule, so they are constants
    in code that is compiled or exported.
    When it helps: behind cache-features, cache-blocks or cache-adaptive, at intervals where plain reuse lags behind.
    Refuses when: nothing is cached, what is cached is frozen cross-attention, it is forecast already, or too few
    steps are full.
    What it costs: tier traded; `order` more copies of the features in memory, and an addition each. A high order over
    a long interval overshoots and is worse than plain reuse.
    References: TaylorSeer arXiv 2503.06923.
    """

    name = "forecast-features"
    family = Family.CACHING
    tier = Tier.TRADED
    examples = (
        Example("reduce-steps{steps=6},cache-features,forecast-features", expect="full at [0, 3] branch 0 order 1"),
        Example("forecast-features", refusal="nothing is cached"),
        Example("cache-features,forecast-features,forecast-features", refusal="forecast already"),
        Example("gate-cross-attention,forecast-features", refusal="is frozen"),
    )

    order: int = 1

    def check_options(self) -> None:
        self.require(1 <= self.order <= 3, "order", "from 1 to 3")

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        for order in (1, 2):
            yield cls(order=order)

    def refuse(self, module: ModuleOp) -> Refusal | None:
        reuse = loops(module)[0].predicts[0].reuse
        if reuse is None:
            return Refusal("nothing is cached that could be carried on", "diffusion.predict", "requires")
        if reuse.order:
            return Refusal("the features are forecast already", "diffusion.predict", "one-forecast")
        if reuse.branch is None and reuse.blocks is None:
            return Refusal("what is cached is frozen, not carried on", "diffusion.predict", "wrong-kind")
        if len(reuse.full) <= self.order:
            return Refusal(f"an order of {self.order} takes more than {len(reuse.full)} full steps")
        return None

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        predict = loops(op)[0].predicts[0]
        if predict.reuse is None:
            raise ValueError("forecast-features was applied to a module it refuses")
        origin = predict.attributes.get("origin")
        before = f"{origin.data}, " if origin is not None and hasattr(origin, "data") else ""
        mark(op, replace(predict.reuse, order=self.order), f"{before}{self.name}")
