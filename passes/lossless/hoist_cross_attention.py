"""Project the prompt to keys and values once a request, not once a step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import denoisers_of
from diffopt.passes.base import DiffusionPass, Example, Family, Refusal, Tier


@dataclass(frozen=True)
class HoistCrossAttention(DiffusionPass):
    """Project the prompt to keys and values once a request, not once a step.

    What it does: loop-invariant code motion on cross-attention: its keys and values depend on the prompt alone, so each is
    computed at a request's first step and kept to its end.
    When it helps: with many steps, small latents and long prompts; the share is the two projections of the prompt.
    Refuses when: the denoiser has no cross-attention, changes the prompt from block to block (joint attention), or is
    compiled or exported.
    What it costs: tier exact, bit for bit; keys and values of all blocks stay in memory for one request.
    References: TextKVCache of diffusers; classic loop-invariant code motion.
    """

    name = "hoist-cross-attention"
    family = Family.LOSSLESS
    tier = Tier.EXACT
    examples = (
        Example("hoist-cross-attention", expect='diffusion.transform "hoist_cross_attention"'),
        Example("hoist-cross-attention", expect='diffusion.transform "hoist_cross_attention"', model="transformer"),
        Example("compile,hoist-cross-attention", refusal="compiled code projects the prompt itself"),
    )
    after = ("family:quantization",)
    one_of = "prompt-keys"
    excludes = {
        "compile": "compiled code projects the prompt itself",
        "compile-regional": "a compiled block projects the prompt itself",
        "export": "an engine projects the prompt itself",
    }

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        yield cls()

    def refuse(self, module: ModuleOp) -> Refusal | None:
        for denoiser in denoisers_of(module):
            if not denoiser.class_name.data.endswith(CROSS):
                reason = f"{denoiser.class_name.data} has no cross-attention whose prompt stays the same"
                return Refusal(reason, f"@{denoiser.sym_name.data}", "wrong-kind")
        return None

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for denoiser in denoisers_of(op):
            denoiser.add_transform("hoist_cross_attention", {}, self.name)


CROSS = (
    ".UNet2DConditionModel",
    ".UNet3DConditionModel",
    ".PixArtTransformer2DModel",
    ".SanaTransformer2DModel",
    ".Transformer2DModel",
)
"""Denoisers whose blocks attend to a prompt that none of them changes."""
