"""Compile the VAE's decoder with torch.compile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Self

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import components
from diffopt.passes.base import DiffusionPass, Example, Family, Refusal, Tier


@dataclass(frozen=True)
class CompileVae(DiffusionPass):
    """Compile the VAE's decoder with torch.compile.

    What it does: wraps `decode` in `torch.compile`.
    When it helps: at few steps and large images; the first call takes tens of seconds.
    Refuses when: there is no VAE, or it is compiled or exported already.
    What it costs: tier exact, to the last bits.
    References: torch.compile documentation.
    """

    name = "compile-vae"
    family = Family.VAE
    tier = Tier.EXACT
    examples = (
        Example("compile-vae", expect='diffusion.transform "compile" {mode = "default"}'),
        Example("export,compile-vae", refusal="cannot have both export and compile-vae"),
    )
    after = ("family:quantization", "tile-vae", "slice-vae", "vae-channels-last", "tiny-vae", "half-precision")
    one_of = "engine"

    mode: Literal["default", "max-autotune-no-cudagraphs"] = "default"

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        yield cls()

    def refuse(self, module: ModuleOp) -> Refusal | None:
        return None if "vae" in components(module) else Refusal("there is no VAE", "@pipeline", "wrong-kind")

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        components(op)["vae"].add_transform("compile", {"mode": self.mode}, self.name)
