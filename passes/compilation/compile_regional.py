"""Compile the denoiser's repeated block once, and use it for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Self

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import denoisers_of
from diffopt.passes.base import DiffusionPass, Example, Family, Refusal, Tier, unlike_torch
from diffopt.passes.denoiser_classes import REPEATS_BLOCKS


@dataclass(frozen=True)
class CompileRegional(DiffusionPass):
    """Compile the denoiser's repeated block once, and use it for all of them.

    What it does: calls `compile_repeated_blocks`: one compilation serves every block of the kind that the class names.
    When it helps: as compile, at a fraction of its compile time; what lies between the blocks stays eager.
    Refuses when: the class names no repeated block, or the denoiser is compiled or exported already.
    What it costs: tier exact, to the last bits.
    References: diffusers, "Regional compilation"; PyTorch recipe of that name.
    """

    name = "compile-regional"
    family = Family.COMPILATION
    tier = Tier.EXACT
    examples = (
        Example("compile-regional", expect='diffusion.transform "compile_regional" {mode = "default"}'),
        Example("compile,compile-regional", refusal="cannot have both compile and compile-regional"),
    )
    after = ("family:quantization",)
    one_of = "engine"

    mode: Literal["default", "max-autotune-no-cudagraphs"] = "default"

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        yield cls()

    def refuse(self, module: ModuleOp) -> Refusal | None:
        if (why := unlike_torch(module)) is not None:
            return why
        for denoiser in denoisers_of(module):
            if denoiser.class_name.data.removeprefix("diffusers.") not in REPEATS_BLOCKS:
                reason = f"{denoiser.class_name.data} names no block that repeats"
                return Refusal(reason, f"@{denoiser.sym_name.data}", "wrong-kind")
        return None

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for denoiser in denoisers_of(op):
            denoiser.add_transform("compile_regional", {"mode": self.mode}, self.name)
