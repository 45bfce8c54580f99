"""The parts of demo:shapes: where they lie, how they are configured, how they are saved."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

WEIGHTS = Path(__file__).resolve().parent / "weights"
TOKENS = 32
"""Length of a tokenized prompt."""
LATENT = (4, 16, 16)
"""Shape of one latent: channels, height, width."""


class Savable(Protocol):
    """What a part of a pipeline offers for saving."""

    def save_pretrained(self, save_directory: str) -> Any:
        """Write configuration and weights into the folder."""
        ...


def new_vae() -> AutoencoderKL:
    """Return an untrained f4 autoencoder (0.7 M parameters)."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        sample_size=64,
        latent_channels=4,
        block_out_channels=(16, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        norm_num_groups=8,
        scaling_factor=1.0,
    )


def new_unet(widths: tuple[int, ...] = (32, 64, 96), **further: Any) -> UNet2DConditionModel:
    """Return an untrained denoiser (2.8 M parameters at these widths); `attention_head_dim` means the number of heads."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=widths,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=128,
        attention_head_dim=4,
        norm_num_groups=8,
        **further,
    )


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Return an untrained text encoder (0.5 M parameters) for the tokenizer's vocabulary."""
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=256,
            projection_dim=128,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def new_scheduler() -> DDIMScheduler:
    """Return the DDIM scheduler; beta_end 0.02 leaves almost no signal at the first step, so prompts rule it."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.02,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def load(part: str) -> Any:
    """Load one trained part ("vae", "unet", "text_encoder", "tokenizer", "scheduler"), networks as float32."""
    import diffusers
    import torch
    import transformers

    folder = WEIGHTS / part
    if part == "tokenizer":
        return transformers.CLIPTokenizer.from_pretrained(folder)
    if part == "scheduler":
        return diffusers.DDIMScheduler.from_pretrained(folder)
    if part == "text_encoder":
        return transformers.CLIPTextModel.from_pretrained(folder, dtype=torch.float32)
    kind = {"vae": diffusers.AutoencoderKL, "unet": diffusers.UNet2DConditionModel}[part]
    return kind.from_pretrained(folder).float()


def load_pipeline() -> StableDiffusionPipeline:
    """Load the whole pipeline as float32, quietly."""
    import torch
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(WEIGHTS, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save(part: str, thing: Savable) -> None:
    """Save one part under its name, file by file in place, so that a reader never sees half a file."""
    _save(thing, WEIGHTS / part)


def save_index() -> None:
    """Write model_index.json; every part must be saved already."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline(
        **{part: load(part) for part in ("vae", "text_encoder", "tokenizer", "unet", "scheduler")},
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    fresh = WEIGHTS.with_name("weights.index.new")
    pipeline.save_config(str(fresh))
    _move(fresh, WEIGHTS)


def _save(thing: Any, folder: Path) -> None:
    import copy

    import torch

    fresh = folder.with_name(f"{folder.name}.new")
    if isinstance(thing, torch.nn.Module):
        thing = copy.deepcopy(thing).to(torch.float16)
    thing.save_pretrained(str(fresh))
    config = fresh / "config.json"
    if config.exists():
        settings = {key: value for key, value in json.loads(config.read_text()).items() if key != "_name_or_path"}
        config.write_text(json.dumps(settings, indent=2) + "\n")
    _move(fresh, folder)


def _move(fresh: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(fresh.iterdir()):
        path.chmod(0o644)
        os.replace(path, folder / path.name)
    shutil.rmtree(fresh)
