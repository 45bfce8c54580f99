"""Store or compute the denoiser's matrix multiplications in 8 bits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Self

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import denoisers_of
from diffopt.passes.base import DiffusionPass, Example, Family, Refusal, Tier, unlike_torch


@dataclass(frozen=True)
class Quantize(DiffusionPass):
    """Store or compute the denoiser's matrix multiplications in 8 bits.

    What it does: `int8-weights` stores weights in 8 bits and widens them for the multiplication; `int8-dynamic`
    multiplies in 8 bits too, with activation scales found at run time.
    When it helps: when memory or memory bandwidth is the limit; engines may or may not be faster with it.
    Refuses when: the denoiser is quantized, compiled or exported already.
    What it costs: tier near.
    References: LLM.int8() arXiv 2208.07339; torchao and NNCF documentation.
    """

    name = "quantize"
    family = Family.QUANTIZATION
    tier = Tier.NEAR
    examples = (
        Example("quantize", expect='diffusion.transform "quantize" {scheme = "int8-weights"}'),
        Example("export,quantize", refusal="quantize must come before export"),
        Example("quantize,quantize", refusal="cannot have quantize twice"),
    )
    before = ("family:compilation",)
    one_of = "weights"

    scheme: Literal["int8-weights", "int8-dynamic"] = "int8-weights"

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        yield cls(scheme="int8-weights")
        yield cls(scheme="int8-dynamic")

    def refuse(self, module: ModuleOp) -> Refusal | None:
        return unlike_torch(module)

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for denoiser in denoisers_of(op):
            denoiser.add_transform("quantize", {"scheme": self.scheme}, self.name)
