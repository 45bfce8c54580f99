"""Stages `vae` and `decoder`: the f4 autoencoder, on object crops, then on whole images, then whitened."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from diffopt.bench.models.shapes import parts
from diffopt.bench.models.shapes.drawing import CENTRES
from diffopt.bench.models.shapes.scenes import POSITIONS
from diffopt.bench.models.shapes.training import WORK, Drawn, cosine, drawn, log

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL

CROP_STEPS, CROP_BATCH = 3600, 32
IMAGE_STEPS, IMAGE_BATCH = 700, 16
DECODER_STEPS = 500
_KL = 3e-4
_AFTER_CROPS = WORK / "vae-crops.safetensors"

Batches = Iterator["torch.Tensor"]


def run() -> None:
    """Train encoder and decoder, whiten the latents, save; a run that was stopped goes on after the crops."""
    import torch
    from safetensors.torch import load_file, save_file

    torch.manual_seed(1)
    data = drawn(20_000, 1, "train")
    vae = parts.new_vae().to(memory_format=torch.channels_last)
    rng = np.random.default_rng(1)
    if _AFTER_CROPS.exists():
        vae.load_state_dict(load_file(_AFTER_CROPS))
    else:
        _fit(vae, "crops", _crops(data, rng), CROP_STEPS, 2e-3, _autoencode(vae))
        WORK.mkdir(parents=True, exist_ok=True)
        save_file({name: value.contiguous() for name, value in vae.state_dict().items()}, _AFTER_CROPS)
    _fit(vae, "images", _images(data, rng), IMAGE_STEPS, 8e-4, _autoencode(vae))
    whiten(vae, torch.cat(list(itertools.islice(_images(data, rng), 60))))
    parts.save("vae", vae)
    log("vae", f"whitened and saved; PSNR {psnr(vae):.1f} dB on 256 other scenes")


def run_decoder() -> None:
    """Train the decoder alone on the latents of the frozen encoder, save."""
    import torch

    torch.manual_seed(2)
    data = drawn(20_000, 2, "train")
    vae = parts.load("vae").to(memory_format=torch.channels_last)
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)

    def loss(images: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            latents = vae.encode(images).latent_dist.mean
            latents = latents + 0.08 * torch.randn_like(latents)
        return _distance(vae.decode(latents).sample, images)

    _fit(vae, "decoder", _images(data, np.random.default_rng(2)), DECODER_STEPS, 1e-3, loss)
    parts.save("vae", vae)
    log("decoder", f"saved; PSNR {psnr(vae):.1f} dB on 256 other scenes")


def psnr(vae: AutoencoderKL) -> float:
    """Return the median reconstruction PSNR in dB on 256 scenes of the search split."""
    import torch

    images = _tensor(drawn(256, 3, "search").images)
    with torch.no_grad():
        again = vae.decode(vae.encode(images).latent_dist.mean).sample.clamp(-1, 1)
    error = ((again - images) / 2).square().mean(dim=(1, 2, 3))
    return float((-10 * error.log10()).median())


def _autoencode(vae: AutoencoderKL) -> Callable[[torch.Tensor], torch.Tensor]:
    def loss(images: torch.Tensor) -> torch.Tensor:
        posterior = vae.encode(images).latent_dist
        kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
        total: torch.Tensor = _distance(vae.decode(posterior.sample()).sample, images) + _KL * kl
        return total

    return loss


def _distance(again: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    error = again - images
    loss: torch.Tensor = error.abs().mean() + 2 * error.square().mean()
    return loss


def _fit(
    vae: AutoencoderKL,
    name: str,
    batches: Batches,
    steps: int,
    rate: float,
    loss_of: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    import torch

    weights = [weight for weight in vae.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=rate, betas=(0.9, 0.99), weight_decay=0.0)
    smooth = 0.0
    for step, images in enumerate(itertools.islice(batches, steps)):
        for group in optimizer.param_groups:
            group["lr"] = rate * cosine(step, steps)
        loss = loss_of(images)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        smooth = loss.item() if step == 0 else 0.98 * smooth + 0.02 * loss.item()
        if (step + 1) % max(1, steps // 8) == 0:
            log("vae", f"{name} {step + 1}/{steps} loss {smooth:.4f}")


def _crops(data: Drawn, rng: np.random.Generator) -> Batches:
    """Yield batches [CROP_BATCH, 3, 32, 32], each crop near one object of its image."""
    while True:
        chosen = rng.integers(len(data.images), size=CROP_BATCH)
        corners = np.empty((CROP_BATCH, 2), dtype=int)
        for row, index in enumerate(chosen):
            item = data.scenes[index].items[rng.integers(len(data.scenes[index].items))]
            centre = CENTRES[POSITIONS.index(item.position)] - 16
            corners[row] = np.clip(np.rint(centre + rng.uniform(-9, 9, 2)), 0, 32)
        crops = [data.images[i, y : y + 32, x : x + 32] for i, (x, y) in zip(chosen, corners, strict=True)]
        yield _tensor(np.stack(crops))


def _images(data: Drawn, rng: np.random.Generator) -> Batches:
    """Yield batches [IMAGE_BATCH, 3, 64, 64]."""
    while True:
        yield _tensor(data.images[rng.integers(len(data.images), size=IMAGE_BATCH)])


def _tensor(images: npt.NDArray[np.uint8]) -> torch.Tensor:
    import torch

    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def whiten(vae: AutoencoderKL, images: torch.Tensor) -> None:
    """Fold a whitening of the latents into the convolutions around them: zero mean, unit covariance."""
    import torch

    channels = parts.LATENT[0]
    with torch.no_grad():
        latents = vae.encode(images).latent_dist.mean.double().permute(1, 0, 2, 3).flatten(1)
        mean = latents.mean(dim=1)
        values, vectors = torch.linalg.eigh(torch.cov(latents))
        white = vectors @ torch.diag(values.rsqrt()) @ vectors.T
        back = vectors @ torch.diag(values.sqrt()) @ vectors.T
        before, after = vae.quant_conv, vae.post_quant_conv
        if before is None or after is None or before.bias is None or after.bias is None:
            raise RuntimeError("whitening needs quant_conv and post_quant_conv with biases")
        weight, bias = before.weight.double().flatten(1), before.bias.double()
        weight[:channels], bias[:channels] = white @ weight[:channels], white @ (bias[:channels] - mean)
        bias[channels:] += white.square().sum(dim=1).log()
        before.weight.copy_(weight.reshape(before.weight.shape))
        before.bias.copy_(bias)
        weight, bias = after.weight.double().flatten(1), after.bias.double()
        after.bias.copy_(bias + weight @ mean)
        after.weight.copy_((weight @ back).reshape(after.weight.shape))
