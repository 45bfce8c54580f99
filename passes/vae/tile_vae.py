"""Decode large images tile by tile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.description import vae_scale
from diffopt.ir.dialect import components
from diffopt.passes.base import DiffusionPass, Example, Family, Refusal, Tier


@dataclass(frozen=True)
class TileVae(DiffusionPass):
    """Decode large images tile by tile.

    What it does: decodes in tiles of `tile` pixels that overlap by a share of a side, and blends the seams.
    When it helps: in memory, for images much larger than a tile; it is slower, and images of one tile stay as they are.
    Refuses when: there is no AutoencoderKL, it is tiny, compiled or exported already, or a tile is no multiple of
    the pixels of a latent.
    What it costs: tier traded: each tile is normalized by itself, so tones may differ from tile to tile.
    References: diffusers, "Reduce memory usage".
    """

    name = "tile-vae"
    family = Family.VAE
    tier = Tier.TRADED
    examples = (
        Example(
            "tile-vae{tile=256}", expect='diffusion.transform "tile_vae" {tile = 256 : i64, overlap = 2.500000e-01'
        ),
        Example("tile-vae{tile=30}", refusal="no multiple of the 4 pixels"),
        Example("export,tile-vae", refusal="tile-vae must come before export"),
    )
    before = ("family:compilation",)
    one_of = "vae-tiles"
    excludes = {"tiny-vae": "the tiny autoencoder has no tiles of a chosen size"}

    tile: int = 512
    overlap: float = 0.25

    def check_options(self) -> None:
        self.require(16 <= self.tile <= 8192, "tile", "from 16 to 8192 pixels")
        self.require(0.0 <= self.overlap <= 0.75, "overlap", "a share of the tile, from 0 to 0.75")

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        yield cls()
        yield cls(tile=256)

    def refuse(self, module: ModuleOp) -> Refusal | None:
        vae = components(module).get("vae")
        if vae is None or not vae.class_name.data.endswith(".AutoencoderKL"):
            return Refusal("there is no AutoencoderKL", "@vae" if vae else "@pipeline", "wrong-kind")
        scale = vae_scale(vae.config) or 1
        if self.tile % scale or self.tile < 2 * scale:
            return Refusal(f"a tile of {self.tile} is no multiple of the {scale} pixels of a latent", "@vae")
        return None

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        components(op)["vae"].add_transform("tile_vae", {"tile": self.tile, "overlap": self.overlap}, self.name)
