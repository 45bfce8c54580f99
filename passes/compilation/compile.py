"""Compile the denoiser with torch.compile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Self

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.description import JSON
from diffopt.ir.dialect import denoisers_of
from diffopt.passes.base import DiffusionPass, Example, Family, Refusal, Tier, unlike_torch


@dataclass(frozen=True)
class Compile(DiffusionPass):
    """Compile the denoiser with torch.compile.

    What it does: wraps the denoiser's forward in `torch.compile`; the stock recipe of diffusers' documentation, and
    so the control arm of every report. On a GPU, `reduce-overhead` and `max-autotune` record it as CUDA graphs.
    `freezing` takes the weights for constants and lays them out for the processor once; it goes with mode `default`.
    When it helps: where no engine can take the component; it costs tens of seconds at the first call.
    Refuses when: the denoiser is compiled or exported already, or freezing is asked for in another mode.
    What it costs: tier exact.
    References: torch.compile documentation; diffusers, "Accelerate inference".
    """

    name = "compile"
    family = Family.COMPILATION
    tier = Tier.EXACT
    examples = (
        Example("compile", expect='diffusion.transform "compile" {mode = "default"}'),
        Example("export,compile", refusal="cannot have both export and compile"),
        Example("compile,quantize", refusal="quantize must come before compile"),
    )
    after = ("family:quantization",)
    one_of = "engine"

    mode: Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] = "default"
    freezing: bool = False

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        yield cls()

    def refuse(self, module: ModuleOp) -> Refusal | None:
        if self.freezing and self.mode != "default":
            return Refusal(f"freezing does not go with mode {self.mode}", rule="unsupported-option")
        return unlike_torch(module)

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for denoiser in denoisers_of(op):
            arguments: dict[str, JSON] = {"mode": self.mode} | ({"freezing": True} if self.freezing else {})
            denoiser.add_transform("compile", arguments, self.name)
