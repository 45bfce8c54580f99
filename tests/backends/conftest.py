"""A tiny random pipeline of odd sizes: nothing here depends on trained weights."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")

WORDS = ["<|startoftext|>", "<|endoftext|>", "a</w>", "re", "red</w>"]
LETTERS = "abcdefghijklmnopqrstuvwxyz,.!"


@pytest.fixture(scope="session")
def tiny_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory: 12 x 8 latents of a 24 x 16 picture, text width 32, UNet blocks (32, 64)."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    vocabulary = [*WORDS, *LETTERS, *(f"{letter}</w>" for letter in LETTERS if letter != "a")]
    tokenizer = CLIPTokenizer(
        vocab={token: index for index, token in enumerate(vocabulary)},
        merges=[("r", "e"), ("re", "d</w>")],
        model_max_length=11,
    )
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=48,
            projection_dim=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=11,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=(12, 8),
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=32,
        attention_head_dim=2,
        norm_num_groups=8,
    )
    vae = AutoencoderKL(
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=24,
        scaling_factor=0.7,
    )
    scheduler = DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1, prediction_type="v_prediction")
    pipe = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    directory = tmp_path_factory.mktemp("tiny")
    pipe.save_pretrained(directory)
    return directory


@pytest.fixture
def load(tiny_directory: Path) -> Callable[[], Any]:
    """Return a function that loads the tiny pipeline afresh."""
    return lambda: load_tiny(tiny_directory)


@pytest.fixture
def pipe(load: Callable[[], Any]) -> Any:
    """The tiny pipeline, fresh for each test."""
    return load()


def load_tiny(directory: Path) -> Any:
    import torch
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(directory, dtype=torch.float32, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def picture(pipe: Any, prompt: Any = "a red circle", *, seed: int = 0, **arguments: Any) -> Any:
    """Return the pictures of one request as a tensor in [0, 1]: four steps, guidance 3, unless told otherwise."""
    import torch

    settings = {"num_inference_steps": 4, "guidance_scale": 3.0, "output_type": "pt", **arguments}
    return pipe(prompt, generator=torch.Generator().manual_seed(seed), **settings).images


@pytest.fixture(name="picture")
def picture_fixture() -> Callable[..., Any]:
    """Return a function that runs one request of a pipeline."""
    return picture


@pytest.fixture(scope="session")
def shared_pipe(tiny_directory: Path) -> Any:
    """One tiny pipeline for all tests that leave it as it is."""
    return load_tiny(tiny_directory)


@pytest.fixture(scope="module", autouse=True)
def loads_remembered() -> Iterator[None]:
    """Compile an engine once for all tests of a file that load it undamaged; each test has its own pipeline."""
    from diffopt.backends.openvino import OpenVinoBuilder

    loaded: dict[str, Any] = {}
    original = OpenVinoBuilder.load

    def load(self: OpenVinoBuilder, folder: Path, options: Any) -> Any:
        key = f"{folder}{folder.stat().st_ino}{options}"
        if key not in loaded:
            loaded[key] = original(self, folder, options)
        return loaded[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OpenVinoBuilder, "load", load)
        yield
