"""Project queries, keys and values by one matrix multiplication."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import denoisers_of
from diffopt.passes.base import DiffusionPass, Example, Family, Refusal, Tier
from diffopt.passes.denoiser_classes import FUSES_QKV


@dataclass(frozen=True)
class FuseQkv(DiffusionPass):
    """Project queries, keys and values by one matrix multiplication.

    What it does: joins the three projections of each self-attention, and the two of the prompt in each cross-attention.
    When it helps: where the matrices are small and each call costs; before quantization one scale serves three.
    Refuses when: the class has no fused projections in diffusers, or has such as leave out the norms of queries and
    keys (Stable Diffusion 3.5), or the weights are quantized, compiled or exported.
    What it costs: tier exact, to the last bits; the projections are kept twice.
    References: diffusers, `fuse_qkv_projections`.
    """

    name = "fuse-qkv"
    family = Family.LOSSLESS
    tier = Tier.EXACT
    examples = (
        Example("fuse-qkv", expect='diffusion.transform "fuse_qkv"'),
        Example("fuse-qkv", expect='diffusion.transform "fuse_qkv"', model="transformer"),
        Example("quantize,fuse-qkv", refusal="fuse-qkv must come before quantize"),
    )
    before = ("family:quantization", "family:compilation", "hoist-cross-attention")
    one_of = "fused-projections"

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        yield cls()

    def refuse(self, module: ModuleOp) -> Refusal | None:
        for denoiser in denoisers_of(module):
            if denoiser.class_name.data.removeprefix("diffusers.") not in FUSES_QKV:
                reason = f"{denoiser.class_name.data} has no fused projections in diffusers"
                return Refusal(reason, f"@{denoiser.sym_name.data}", "wrong-kind")
            # `FusedJointAttnProcessor2_0` has no place for them (diffusers 0.42): other pictures, and no word of it.
            if denoiser.class_name.data.endswith("SD3Transformer2DModel") and denoiser.config.get("qk_norm"):
                reason = "diffusers' fused attention leaves out the norms of queries and keys"
                return Refusal(reason, f"@{denoiser.sym_name.data}", "wrong-kind")
        return None

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for denoiser in denoisers_of(op):
            denoiser.add_transform("fuse_qkv", {}, self.name)
