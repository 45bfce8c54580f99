"""Untrained stand-ins for what only a user can name: a small autoencoder, an adapter. They show that code runs, and its time."""

from __future__ import annotations

from pathlib import Path

AUTOENCODER, ADAPTER = Path("models", "taesd"), Path("models", "lcm-lora")
"""Where the examples of tiny-vae and distill-lora find theirs, from the folder that code runs in."""


def write_stand_ins(folder: Path, model: Path) -> None:
    """Write both below a folder; the adapter is one of the UNet of a model directory, random, seed 0."""
    write_autoencoder(folder / AUTOENCODER, model)
    write_adapter(folder / ADAPTER, model)


def write_autoencoder(folder: Path, model: Path) -> None:
    """Write an untrained AutoencoderTiny for the latents of a model directory: as many channels, and as many halvings."""
    from diffusers import AutoencoderKL, AutoencoderTiny

    config = AutoencoderKL.load_config(model / "vae")
    count = len(config["block_out_channels"])
    widths, blocks = (8,) * count, (1,) * count
    AutoencoderTiny(
        latent_channels=config["latent_channels"],
        encoder_block_out_channels=widths,
        decoder_block_out_channels=widths,
        num_encoder_blocks=blocks,
        num_decoder_blocks=blocks,
    ).save_pretrained(folder)


def write_adapter(folder: Path, model: Path, *, rank: int = 4, scale: float = 0.02) -> None:
    """Write a random LoRA of the attention of a model directory's UNet; nothing where it has none, or peft is not installed."""
    import importlib.util

    if importlib.util.find_spec("peft") is None or not (model / "unet").is_dir():
        return
    import torch
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    unet = UNet2DConditionModel.from_pretrained(model / "unet")
    unet.add_adapter(LoraConfig(r=rank, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet))
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=layers)
