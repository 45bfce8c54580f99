"""Compute the denoiser, or the VAE, in 16 bits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Self, get_args

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import components, denoisers_of
from diffopt.passes.base import DiffusionPass, Example, Family, Refusal, Tier, unlike_torch

Dtype = Literal["bfloat16", "float16"]
Part = Literal["denoiser", "vae"]


@dataclass(frozen=True)
class HalfPrecision(DiffusionPass):
    """Compute the denoiser, or the VAE, in 16 bits.

    What it does: casts the component to bfloat16 or float16; the sampler's arithmetic stays as wide as it was. An output that
    is not finite is computed again in float32, where the component then stays.
    When it helps: on GPUs always; on CPUs with AMX or AVX-512 BF16; on others it is slower.
    Refuses when: the weights are quantized, cast or in 16 bits already, the component is compiled, exported or
    cached (a UNet), or there is none.
    What it costs: tier near.
    References: BFloat16 arXiv 1905.12322.
    """

    name = "half-precision"
    family = Family.QUANTIZATION
    tier = Tier.NEAR
    examples = (
        Example("half-precision", expect='diffusion.transform "half_precision" {dtype = "bfloat16"}'),
        Example("half-precision,export", refusal="an engine is made of float32 weights"),
        Example("quantize,half-precision", refusal="cannot have both quantize and half-precision"),
    )
    before = ("family:compilation",)
    one_of = "weights"
    excludes = {
        "export": "an engine is made of float32 weights, and has a precision of its own",
        "cache-features": "its passes call the layers behind the door that casts",
    }

    dtype: Dtype = "bfloat16"
    part: Part = "denoiser"

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        for part in get_args(Part):
            for dtype in get_args(Dtype):
                yield cls(dtype=dtype, part=part)

    def refuse(self, module: ModuleOp) -> Refusal | None:
        if (why := unlike_torch(module)) is not None:
            return why
        if components(module)["pipeline"].values.get("dtype") != "float32":
            return Refusal("the pipeline is loaded in 16 bits already", "@pipeline", "present")
        if self.part == "vae" and "vae" not in components(module):
            return Refusal("there is no VAE", "@pipeline", "wrong-kind")
        return None

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        parts = denoisers_of(op) if self.part == "denoiser" else (components(op)["vae"],)
        for part in parts:
            part.add_transform("half_precision", {"dtype": self.dtype}, self.name)
