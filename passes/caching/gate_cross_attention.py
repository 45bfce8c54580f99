"""Freeze what the cross-attentions give out after some steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import denoiser_of, steps_of
from diffopt.ir.reuse import Reuse
from diffopt.passes.base import DiffusionPass, Example, Family, Refusal, Tier
from diffopt.passes.caching.schedule import mark, refuse_schedule

WITHOUT = ("SD3", "Flux", "QwenImage", "ZImage", "AuraFlow", "CogView", "HunyuanVideo", "Lumina")
"""Transformers that join text and image in one attention, so that nothing can be frozen by itself."""


@dataclass(frozen=True)
class GateCrossAttention(DiffusionPass):
    """Freeze what the cross-attentions give out after some steps.

    What it does: from the fraction `gate` of the steps on, every cross-attention gives out what it gave at the last
    step before, and is not computed. The schedule is static and survives export like that of cache-features.
    When it helps: with long prompts and high resolution, in UNets and PixArt; together with guidance-window it is
    T-GATE. With few text tokens cross-attention costs next to nothing, and so does leaving it out.
    Refuses when: the denoiser has no cross-attention of its own, its features are cached already, the gate rounds
    to none or all of the steps, or the call is more than one denoiser over one whole schedule (a
    ControlNet beside it is not).
    What it costs: tier traded; near for a gate past the middle.
    References: T-GATE arXiv 2404.02747.
    """

    name = "gate-cross-attention"
    family = Family.CACHING
    tier = Tier.TRADED
    examples = (
        Example("reduce-steps{steps=4},gate-cross-attention{gate=0.5}", expect="full at [0, 1] cross_attention"),
        Example("cache-features,gate-cross-attention", refusal="cached already"),
        Example("gate-cross-attention{gate=0.001}", refusal="holds none of 50 steps"),
    )
    one_of = "feature-cache"

    gate: float = 0.4

    def check_options(self) -> None:
        self.require(0.0 < self.gate < 1.0, "gate", "a fraction of the steps between 0 and 1")

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        steps, seen = steps_of(module), set[int]()
        for gate in (0.2, 0.3, 0.4, 0.5, 0.6, 0.8):
            if 0 < round(gate * steps) < steps and round(gate * steps) not in seen:
                seen.add(round(gate * steps))
                yield cls(gate=gate)

    def refuse(self, module: ModuleOp) -> Refusal | None:
        denoiser, steps = denoiser_of(module), steps_of(module)
        kind, where = denoiser.class_name.data.rpartition(".")[2], f"@{denoiser.sym_name.data}"
        if kind.startswith(WITHOUT):
            return Refusal(f"{kind} has no cross-attention of its own", where, "wrong-kind")
        if round(self.gate * steps) == 0:
            return Refusal(f"a gate at {self.gate:g} holds none of {steps} steps", "diffusion.denoise")
        return refuse_schedule(module, self._full(module), controls=True)

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        mark(op, Reuse(self._full(op)), self.name)

    def _full(self, module: ModuleOp) -> tuple[int, ...]:
        return tuple(range(round(self.gate * steps_of(module))))
