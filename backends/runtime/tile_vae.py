"""Decode large images tile by tile."""

from __future__ import annotations

import functools
from typing import Any, TypeVar

from diffopt.backends.base import BackendError, Witness
from diffopt.backends.runtime.attachment import attachment, component_name

Pipe = TypeVar("Pipe")


def tile_vae(pipe: Pipe, component: str = "vae", *, tile: int = 512, overlap: float = 0.25) -> Pipe:
    """Make the autoencoder decode images above `tile` pixels a side in tiles that overlap by that share.

    Raises BackendError if it cannot, or if the tile is no multiple of what one latent stands for.
    """
    name, state = component_name(pipe, component), attachment(pipe)
    vae = getattr(pipe, name)
    if not hasattr(vae, "tile_latent_min_size") or not hasattr(vae, "tiled_decode"):
        raise BackendError(f"{type(vae).__name__} does not decode in tiles of a chosen size")
    scale = 2 ** (len(vae.config.block_out_channels) - 1)
    if tile % scale or tile < 2 * scale:
        raise BackendError(
            f"a tile of {tile} pixels is not made of latents", f"a multiple of {scale}, from {2 * scale}"
        )
    vae.tile_sample_min_size, vae.tile_latent_min_size = tile, tile // scale
    vae.tile_overlap_factor = overlap
    vae.enable_tiling()
    original, count = vae.tiled_decode, [0]

    @functools.wraps(original)
    def tiled_decode(*args: Any, **kwargs: Any) -> Any:
        count[0] += state.counting
        return original(*args, **kwargs)

    vae.__dict__["tiled_decode"] = tiled_decode
    state.note(name, "tile_vae", tile=tile, overlap=overlap)
    detail = f"images decoded in tiles of {tile} pixels"
    state.witnesses.append(lambda: Witness("tile_vae", count[0], f"{name}: {count[0]} {detail}"))
    return pipe
