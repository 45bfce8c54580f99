"""Lay out the autoencoder's convolutions with channels last."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import components
from diffopt.passes.base import DiffusionPass, Example, Family, Refusal, Tier


@dataclass(frozen=True)
class VaeChannelsLast(DiffusionPass):
    """Lay out the autoencoder's convolutions with channels last.

    What it does: as channels-last, for the VAE.
    When it helps: where decoding is a large share, at few steps and large images.
    Refuses when: there is no VAE, or it is compiled or exported already.
    What it costs: tier exact, to the last bits of another order of summation.
    References: PyTorch, "Channels Last Memory Format in PyTorch".
    """

    name = "vae-channels-last"
    family = Family.VAE
    tier = Tier.EXACT
    examples = (
        Example("vae-channels-last", expect='diffusion.transform "channels_last"'),
        Example("export,vae-channels-last", refusal="vae-channels-last must come before export"),
    )
    before = ("family:quantization", "family:compilation")
    one_of = "layout"

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        yield cls()

    def refuse(self, module: ModuleOp) -> Refusal | None:
        return None if "vae" in components(module) else Refusal("there is no VAE", "@pipeline", "wrong-kind")

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        components(op)["vae"].add_transform("channels_last", {}, self.name)
