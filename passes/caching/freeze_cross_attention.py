"""Freeze what the cross-attentions give out, beside a cache of features."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import denoiser_of, steps_of
from diffopt.passes.base import DiffusionPass, Example, Family, Refusal, Tier
from diffopt.passes.steps.solvers import asks_twice

CROSS = (".UNet2DConditionModel", ".PixArtTransformer2DModel")
"""Denoisers whose blocks have a cross-attention of their own."""


@dataclass(frozen=True)
class FreezeCrossAttention(DiffusionPass):
    """Freeze what the cross-attentions give out, beside a cache of features.

    What it does: from the fraction `gate` of the steps on, every cross-attention gives out what it gave when it was last
    computed, as gate-cross-attention does, but in the live module and not in the schedule of steps, so that a cache of
    features may decide beside it which steps run in full. With guidance-window and cache-features it is the loader that
    T-GATE has for DeepCache.
    When it helps: hardly, in a denoiser whose features are cached: it is there for those who ask for both by name.
    Refuses when: the denoiser has no cross-attention of its own, or is compiled, captured or exported, the gate rounds to none
    or all of the steps, or gate-cross-attention is there.
    What it costs: tier traded.
    References: T-GATE arXiv 2404.02747, and its TgateSDDeepCacheLoader.
    """

    name = "freeze-cross-attention"
    family = Family.CACHING
    tier = Tier.TRADED
    examples = (
        Example("freeze-cross-attention{gate=0.5}", expect='diffusion.transform "freeze_cross_attention"'),
        Example("cache-features,freeze-cross-attention", expect='"freeze_cross_attention" {gate = 4.000000e-01'),
        Example("gate-cross-attention,freeze-cross-attention", refusal="both freeze the cross-attentions"),
        Example("freeze-cross-attention{gate=0.001}", refusal="holds none of 50 steps"),
        Example("freeze-cross-attention", refusal="no cross-attention of its own", model="flow"),
    )
    excludes = {
        "gate-cross-attention": "both freeze the cross-attentions",
        "freeze-prompt": "both put something in the place of the cross-attentions",
        "export": "an engine computes the cross-attentions itself",
        "compile": "compiled code computes the cross-attentions itself",
        "compile-regional": "a compiled block computes the cross-attentions itself",
        "capture-step": "captured steps cannot ask which step it is",
        "fuse-pipeline": "a fused loop cannot ask which step it is",
    }
    one_of = "cross-attention-gate"
    on_request = True

    gate: float = 0.4

    def check_options(self) -> None:
        self.require(0.0 < self.gate < 1.0, "gate", "a fraction of the steps between 0 and 1")

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        return iter(())

    def refuse(self, module: ModuleOp) -> Refusal | None:
        denoiser, steps = denoiser_of(module), steps_of(module)
        where = f"@{denoiser.sym_name.data}"
        if not denoiser.class_name.data.endswith(CROSS):
            return Refusal(f"{denoiser.class_name.data} has no cross-attention of its own", where, "wrong-kind")
        if round(self.gate * steps) == 0:
            return Refusal(f"a gate at {self.gate:g} holds none of {steps} steps", where)
        if round(self.gate * steps) >= steps:
            return Refusal(f"a gate at {self.gate:g} holds all of {steps} steps", where)
        return asks_twice(module)

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        denoiser_of(op).add_transform("freeze_cross_attention", {"gate": self.gate}, self.name)
