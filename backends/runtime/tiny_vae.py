"""Decode with a small distilled autoencoder."""

from __future__ import annotations

import functools
from typing import Any, TypeVar

from diffopt.backends.base import BackendError, Witness
from diffopt.backends.runtime.attachment import attachment

Pipe = TypeVar("Pipe")


def tiny_vae(pipe: Pipe, component: str = "vae", *, directory: str) -> Pipe:
    """Replace the autoencoder by the `AutoencoderTiny` in a directory (or of a hub id), in the same dtype and place.

    Raises BackendError if there is none, or if it was made for other latents.
    """
    from diffusers import AutoencoderTiny

    state, before = attachment(pipe), getattr(pipe, component)
    if state.transforms.get(component):
        raise BackendError("another autoencoder comes before anything is done to it")
    try:
        vae = AutoencoderTiny.from_pretrained(directory, torch_dtype=before.dtype).to(before.device)
    except (OSError, ValueError) as error:
        raise BackendError(f"no AutoencoderTiny at {directory}: {str(error).splitlines()[0]}") from None
    channels, needed = vae.config.latent_channels, before.config.latent_channels
    if channels != needed:
        raise BackendError(f"{directory} decodes latents of {channels} channels, the pipeline makes {needed}")
    scale = 2 ** (len(vae.config.decoder_block_out_channels) - 1)
    wanted = getattr(pipe, "vae_scale_factor", scale)
    if scale != wanted:
        raise BackendError(f"{directory} makes {scale} pixels of a latent, the pipeline {wanted}")
    original, count = vae.decode, [0]

    @functools.wraps(original)
    def decode(*args: Any, **kwargs: Any) -> Any:
        count[0] += state.counting
        return original(*args, **kwargs)

    vae.__dict__["decode"] = decode
    pipe.register_modules(**{component: vae})  # type: ignore[attr-defined]
    state.note(component, "tiny_vae", directory=directory)
    state.witnesses.append(lambda: Witness("tiny_vae", count[0], f"{component}: {count[0]} decodings by {directory}"))
    return pipe
