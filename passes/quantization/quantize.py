"""Store the denoiser's weights in 8 or 4 bits, or compute its matrix multiplications in 8."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Self

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.description import JSON
from diffopt.ir.dialect import denoisers_of
from diffopt.passes.base import DiffusionPass, Example, Family, Refusal, Tier, unlike_torch


@dataclass(frozen=True)
class Quantize(DiffusionPass):
    """Store the denoiser's weights in 8 or 4 bits, or compute its matrix multiplications in 8.

    What it does: `int8-weights` stores weights in 8 bits and widens them for the multiplication; `int8-dynamic`
    multiplies in 8 bits too, with activation scales found at run time. `int4-weights` stores them in 4 bits, in groups of
    32 with a scale and a smallest value each, and where rows are no whole groups, in 8. Layers that `exclude` names, or whose names start
    so, stay as they are; `python -m diffopt.bench.fit sensitivity MODEL --error E` finds those by measuring every layer
    alone, in one recorded run, and prints this pass with the most bytes narrowed for a denoiser error below E.
    When it helps: when memory or memory bandwidth is the limit; engines may or may not be faster with it.
    Refuses when: the denoiser is quantized, compiled or exported already.
    What it costs: tier near; 4 bits are measured as near or not on each model. torchao's own 4-bit layers need kernels of
    particular GPUs, and do not run on a processor (docs/decisions/0070-four-bit-weights-of-our-own.md).
    References: LLM.int8() arXiv 2208.07339; torchao and NNCF documentation.
    """

    name = "quantize"
    family = Family.QUANTIZATION
    tier = Tier.NEAR
    examples = (
        Example("quantize", expect='diffusion.transform "quantize" {scheme = "int8-weights"}'),
        Example('quantize{exclude="conv_in,conv_out"}', expect='exclude = ["conv_in", "conv_out"]'),
        Example("export,quantize", refusal="quantize must come before export"),
        Example("quantize,quantize", refusal="cannot have quantize twice"),
    )
    before = ("family:compilation",)
    one_of = "weights"

    scheme: Literal["int8-weights", "int8-dynamic", "int4-weights"] = "int8-weights"
    exclude: str = ""

    def check_options(self) -> None:
        legal = not self.exclude or all(NAME.fullmatch(part) for part in self.exclude.split(","))
        self.require(legal, "exclude", "names of layers parted by commas, as conv_in,mid_block.attentions.0")

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        yield cls(scheme="int8-weights")
        yield cls(scheme="int8-dynamic")
        yield cls(scheme="int4-weights")

    def refuse(self, module: ModuleOp) -> Refusal | None:
        return unlike_torch(module)

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for denoiser in denoisers_of(op):
            arguments: dict[str, JSON] = {"scheme": self.scheme}
            arguments |= {"exclude": [*self.exclude.split(",")]} if self.exclude else {}
            denoiser.add_transform("quantize", arguments, self.name)


NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*", re.ASCII)
