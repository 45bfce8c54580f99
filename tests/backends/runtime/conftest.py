"""Tiny pipelines around transformers, randomly initialized: what each call takes in place of a prompt stands beside."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)

HEADS: dict[str, int] = {"attention_head_dim": 8, "num_attention_heads": 2}


def _vae(channels: int) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=channels,
        norm_num_groups=4,
        sample_size=16,
        shift_factor=0.0,
    ).eval()


def pixart() -> tuple[Any, dict[str, Any]]:
    """Blocks that return one tensor; noise prediction; guidance in one batch, with no property that tells it."""
    torch.manual_seed(0)
    transformer = PixArtTransformer2DModel(
        num_layers=4,
        in_channels=4,
        out_channels=8,
        cross_attention_dim=16,
        sample_size=8,
        caption_channels=12,
        use_additional_conditions=False,
        **HEADS,
    )
    pipe = PixArtSigmaPipeline(None, None, _vae(4), _varied(transformer), DDIMScheduler(clip_sample=False))
    embeds, mask = torch.randn(2, 6, 12), torch.ones(1, 6)
    return pipe, {
        "prompt": None,
        "negative_prompt": None,
        "prompt_embeds": embeds[:1],
        "negative_prompt_embeds": embeds[1:],
        "prompt_attention_mask": mask,
        "negative_prompt_attention_mask": mask,
        "use_resolution_binning": False,
    }


def sd3() -> tuple[Any, dict[str, Any]]:
    """Blocks that return text and image states, the last one no text; flow prediction; guidance in one batch."""
    torch.manual_seed(0)
    transformer = SD3Transformer2DModel(
        num_layers=4,
        in_channels=4,
        out_channels=4,
        sample_size=8,
        joint_attention_dim=12,
        caption_projection_dim=16,
        pooled_projection_dim=10,
        pos_embed_max_size=8,
        **HEADS,
    )
    pipe = StableDiffusion3Pipeline(
        transformer=_varied(transformer),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_vae(4),
        **dict.fromkeys(f"{part}{n}" for part in ("text_encoder", "tokenizer") for n in ("", "_2", "_3")),
    )
    embeds, pooled = torch.randn(2, 6, 12), torch.randn(2, 10)
    return pipe, {
        "prompt_embeds": embeds[:1],
        "negative_prompt_embeds": embeds[1:],
        "pooled_prompt_embeds": pooled[:1],
        "negative_pooled_prompt_embeds": pooled[1:],
    }


def flux() -> tuple[Any, dict[str, Any]]:
    """Two lists of blocks in a row; guidance as an input of the network, and on request in turn."""
    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        num_layers=2,
        num_single_layers=2,
        in_channels=16,
        joint_attention_dim=12,
        pooled_projection_dim=10,
        axes_dims_rope=(2, 2, 4),
        guidance_embeds=True,
        **HEADS,
    )
    pipe = FluxPipeline(
        transformer=_varied(transformer),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=_vae(4),
        **dict.fromkeys(f"{part}{n}" for part in ("text_encoder", "tokenizer") for n in ("", "_2")),
    )
    embeds, pooled = torch.randn(2, 6, 12), torch.randn(2, 10)
    return pipe, {
        "prompt_embeds": embeds[:1],
        "negative_prompt_embeds": embeds[1:],
        "pooled_prompt_embeds": pooled[:1],
        "negative_pooled_prompt_embeds": pooled[1:],
    }


TINY = {"pixart": pixart, "sd3": sd3, "flux": flux}


@pytest.fixture(params=list(TINY))
def tiny(request: pytest.FixtureRequest) -> Callable[[], tuple[Any, dict[str, Any]]]:
    """Return what makes a pipeline and the arguments of its call, for each kind in turn."""
    return TINY[request.param]


@pytest.fixture
def tiny_of() -> Callable[[str], tuple[Any, dict[str, Any]]]:
    """Return a function that makes a pipeline of one kind."""
    return lambda kind: TINY[kind]()


@pytest.fixture(name="latents")
def latents_fixture() -> Callable[..., torch.Tensor]:
    """Return a function that runs one request of a tiny pipeline."""
    return latents


def latents(pipe: Any, call: dict[str, Any], *, seed: int = 0, **arguments: Any) -> torch.Tensor:
    """Return the last latents of one request: four steps, guidance 3, 16x16 pixels, unless told otherwise."""
    pipe.set_progress_bar_config(disable=True)
    settings = {"num_inference_steps": 4, "guidance_scale": 3.0, "height": 16, "width": 16, "output_type": "latent"}
    generator = torch.Generator().manual_seed(seed)
    found: torch.Tensor = pipe(**{**call, **settings, **arguments}, generator=generator).images
    return found


def _varied(transformer: Any) -> Any:
    """Give every weight a value: what starts as zero would make blocks do nothing."""
    with torch.no_grad():
        for parameter in transformer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return transformer.eval()
