"""Store the denoiser's weights in 8-bit floats, and widen each layer as it runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Self

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import denoisers_of
from diffopt.passes.base import DiffusionPass, Example, Family, Refusal, Tier, unlike_torch


@dataclass(frozen=True)
class CastLayerwise(DiffusionPass):
    """Store the denoiser's weights in 8-bit floats, and widen each layer as it runs.

    What it does: calls `enable_layerwise_casting`: weights rest in `storage`, a layer's are widened while it computes; norms
    and embeddings stay wide.
    When it helps: in memory alone, to a quarter of float32; it is slower.
    Refuses when: the weights are quantized or in 16 bits already, the denoiser is exported or its features are
    cached, or groups of it are offloaded.
    What it costs: tier traded: weights are rounded to 2 or 3 bits behind the point.
    References: diffusers, "Layerwise casting"; FP8 formats arXiv 2209.05433.
    """

    name = "cast-layerwise"
    family = Family.MEMORY
    tier = Tier.TRADED
    examples = (
        Example("cast-layerwise", expect='diffusion.transform "cast_layerwise" {storage = "float8_e4m3fn"}'),
        Example("cast-layerwise,export", refusal="an engine is made of float32 weights"),
        Example("quantize,cast-layerwise", refusal="cannot have both quantize and cast-layerwise"),
    )
    after = ("fuse-qkv", "channels-last")
    before = ("family:compilation",)
    one_of = "weights"
    excludes = {
        "export": "an engine is made of float32 weights",
        "cache-features": "its passes call the layers where no hook widens their weights",
        "offload-groups": "both put hooks round the same layers, and each moves what the other casts",
    }

    storage: Literal["float8_e4m3fn", "float8_e5m2"] = "float8_e4m3fn"

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        yield cls()
        yield cls(storage="float8_e5m2")

    def refuse(self, module: ModuleOp) -> Refusal | None:
        return unlike_torch(module)

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for denoiser in denoisers_of(op):
            denoiser.add_transform("cast_layerwise", {"storage": self.storage}, self.name)
