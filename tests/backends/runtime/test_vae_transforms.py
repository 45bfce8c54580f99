"""The autoencoder in tiles, or replaced by a small one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from diffopt.backends import BackendError
from diffopt.backends.runtime import tile_vae, tiny_vae, witnesses

Picture = Callable[..., torch.Tensor]


def tiny(folder: Path, channels: int = 4, blocks: int = 2) -> str:
    from diffusers import AutoencoderTiny

    widths = (8,) * blocks
    AutoencoderTiny(
        latent_channels=channels,
        encoder_block_out_channels=widths,
        decoder_block_out_channels=widths,
        num_encoder_blocks=(1,) * blocks,
        num_decoder_blocks=(1,) * blocks,
        upsampling_scaling_factor=2,
    ).save_pretrained(folder)
    return str(folder)


def test_only_images_larger_than_a_tile_are_decoded_in_tiles(load: Callable[[], Any], picture: Picture) -> None:
    plain = picture(load())
    pipe = tile_vae(load(), tile=24)
    assert torch.equal(picture(pipe), plain)
    assert [(w.transform, w.count) for w in witnesses(pipe)] == [("tile_vae", 0)]
    pipe = tile_vae(load(), tile=8)
    assert picture(pipe).shape == plain.shape
    assert witnesses(pipe)[0].count == 1


@pytest.mark.parametrize("tile", [9, 2])
def test_a_tile_is_made_of_latents(pipe: Any, tile: int) -> None:
    with pytest.raises(BackendError, match="is not made of latents"):
        tile_vae(pipe, tile=tile)


def test_a_tiny_autoencoder_decodes_in_its_place(pipe: Any, picture: Picture, tmp_path: Path) -> None:
    shape = picture(pipe).shape
    tiny_vae(pipe, directory=tiny(tmp_path))
    assert type(pipe.vae).__name__ == "AutoencoderTiny"
    assert picture(pipe).shape == shape
    assert [(w.transform, w.count) for w in witnesses(pipe)] == [("tiny_vae", 1)]


@pytest.mark.parametrize(
    ("channels", "blocks", "said"), [(8, 2, "latents of 8 channels"), (4, 3, "makes 4 pixels of a latent")]
)
def test_an_autoencoder_for_other_latents_is_refused(
    pipe: Any, tmp_path: Path, channels: int, blocks: int, said: str
) -> None:
    with pytest.raises(BackendError, match=said):
        tiny_vae(pipe, directory=tiny(tmp_path, channels, blocks))


def test_a_directory_without_one_is_refused(pipe: Any, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="no AutoencoderTiny at"):
        tiny_vae(pipe, directory=str(tmp_path / "nothing"))
