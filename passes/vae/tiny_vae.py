"""Decode with a small distilled autoencoder that the user names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import components
from diffopt.passes.base import DiffusionPass, Example, Family, Refusal, Tier


@dataclass(frozen=True)
class TinyVae(DiffusionPass):
    """Decode with a small distilled autoencoder that the user names.

    What it does: replaces the VAE by the AutoencoderTiny (TAESD and its kin) in a directory, or of a hub id.
    When it helps: at few steps, where decoding is a large share of the time; for previews.
    Refuses when: no autoencoder is named, there is no VAE, or something was done to it already.
    What it costs: tier traded: fine detail is another; it must be made for the same latents.
    References: TAESD, github.com/madebyollin/taesd.
    """

    name = "tiny-vae"
    family = Family.VAE
    tier = Tier.TRADED
    examples = (
        Example(
            "tiny-vae{directory=models/taesd}", expect='diffusion.transform "tiny_vae" {directory = "models/taesd"}'
        ),
        Example("tiny-vae", refusal="name the autoencoder"),
    )
    before = ("family:vae", "family:quantization", "family:compilation", "family:memory")
    one_of = "decoder"
    on_request = True

    directory: str = ""

    def check_options(self) -> None:
        legal = self.directory.isprintable() and not set(self.directory) & set("\"'{}")
        self.require(legal, "directory", "a path or hub id without quotes or braces")

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        yield from ()

    def refuse(self, module: ModuleOp) -> Refusal | None:
        if not self.directory.strip():
            return Refusal("name the autoencoder: tiny-vae{directory=models/taesd}", "@vae", "asked-for")
        return None if "vae" in components(module) else Refusal("there is no VAE", "@pipeline", "wrong-kind")

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        components(op)["vae"].add_transform("tiny_vae", {"directory": self.directory}, self.name)
