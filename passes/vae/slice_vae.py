"""Decode the images of a batch one by one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import components
from diffopt.passes.base import DiffusionPass, Example, Family, Refusal, Tier


@dataclass(frozen=True)
class SliceVae(DiffusionPass):
    """Decode the images of a batch one by one.

    What it does: turns on the VAE's slicing, so that decoding takes the memory of one image whatever the batch.
    When it helps: in memory, with several images a request; it changes nothing for one, and is no faster.
    Refuses when: there is no AutoencoderKL, or it is compiled or exported already.
    What it costs: tier exact; time, with large batches.
    References: diffusers, "Reduce memory usage".
    """

    name = "slice-vae"
    family = Family.VAE
    tier = Tier.EXACT
    examples = (
        Example("slice-vae", expect='diffusion.transform "slice_vae"'),
        Example("export,slice-vae", refusal="slice-vae must come before export"),
    )
    before = ("family:compilation",)
    one_of = "vae-slices"

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        yield cls()

    def refuse(self, module: ModuleOp) -> Refusal | None:
        vae = components(module).get("vae")
        if vae is None or not vae.class_name.data.endswith(".AutoencoderKL"):
            return Refusal("there is no AutoencoderKL", "@vae" if vae else "@pipeline", "wrong-kind")
        return None

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        components(op)["vae"].add_transform("slice_vae", {}, self.name)
