"""The text encoder holds no weights while the denoiser runs, and reads the same ones for a new prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from diffopt.backends.base import BackendError
from diffopt.backends.runtime import reuse_prompt_embeddings, unload_encoder, witnesses

pytestmark = pytest.mark.slow


def _image(pipe: Any, prompt: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    found: torch.Tensor = pipe(prompt, num_inference_steps=2, generator=generator, output_type="pt").images
    return found


def _bytes(pipe: Any) -> int:
    """Return the memory that the text encoder's weights take."""
    return sum(value.untyped_storage().nbytes() for value in pipe.text_encoder.parameters())


def test_weights_come_for_new_prompts_alone_and_the_images_stay(tiny_directory: Path) -> None:
    from diffusers import StableDiffusionPipeline

    plain, pipe = (StableDiffusionPipeline.from_pretrained(tiny_directory) for _ in range(2))
    unload_encoder(pipe, "text_encoder")
    held: list[bool] = []
    pipe.unet.register_forward_hook(lambda *_: held.append(_bytes(pipe) > 10_000))
    for prompt in ("a red circle", "a blue square", "a red circle"):
        assert torch.equal(_image(pipe, prompt), _image(plain, prompt))
    assert held
    assert not any(held)
    (seen,) = witnesses(pipe)
    assert (seen.transform, seen.count) == ("unload_encoder", 2)
    assert seen.detail.endswith("let go 2 times, read 1")


def test_only_one_memory_of_prompts(tiny_directory: Path) -> None:
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(tiny_directory)
    reuse_prompt_embeddings(pipe, "text_encoder")
    with pytest.raises(BackendError, match="remembered already"):
        unload_encoder(pipe, "text_encoder")
