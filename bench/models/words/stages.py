"""What demo:words learns before its denoiser: an autoencoder and a reader of images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from diffopt.bench.models.learning.loop import Say, Stop, fit
from diffopt.bench.models.words.scenes import LONGEST, QUARTERS, WORD
from diffopt.bench.models.words.scorer import HEADS, quarters_of

if TYPE_CHECKING:
    import torch
    from torch import nn

    from diffopt.bench.models.learning.drawing_pool import Drawn

_EXAMPLES = 40_000
_IMAGES, _READ = 64, 128
_KL, _BLUR = 3e-4, 0.05


def images_on(drawn: Drawn, device: torch.device) -> torch.Tensor:
    """Return the first 40,000 images uint8 [n, 3, 64, 64] on the device."""
    import torch

    return torch.from_numpy(np.array(drawn.images[:_EXAMPLES])).permute(0, 3, 1, 2).contiguous().to(device)


def train_vae(vae: nn.Module, images: torch.Tensor, seconds: float, say: Say, stop: Stop) -> nn.Module:
    """Return the autoencoder trained on images uint8 [n, 3, 64, 64] and whitened."""
    import torch

    from diffopt.bench.models.shapes.train_vae import whiten

    def loss(network: Any) -> torch.Tensor:
        pixels = images[torch.randint(len(images), (_IMAGES,), device=images.device)].float() / 127.5 - 1
        posterior = network.encode(pixels).latent_dist
        latents = posterior.mean + posterior.std * torch.randn_like(posterior.mean)
        error = network.decode(latents).sample - pixels
        kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
        total: torch.Tensor = error.abs().mean() + 2 * error.square().mean() + _KL * kl
        return total

    done = fit(vae, loss, seconds=seconds, rate=2e-3, say=say, stop=stop, half=False)
    trained: Any = done
    whiten(trained, images[:1000].float() / 127.5 - 1)
    with torch.no_grad():
        pixels = images[-256:].float() / 127.5 - 1
        again = trained.decode(trained.encode(pixels).latent_dist.mean).sample.clamp(-1, 1)
        error = ((again - pixels) / 2).square().mean(dim=(1, 2, 3))
    say(f"autoencoder: PSNR {float((-10 * error.log10()).median()):.1f} dB")
    return done


def train_scorer(
    network: nn.Module, images: torch.Tensor, labels: torch.Tensor, seconds: float, say: Say, stop: Stop
) -> nn.Module:
    """Return the reader trained on slightly spoiled images; labels int64 [n, LABELS_PER_SCENE]."""
    import torch
    from torch.nn.functional import avg_pool2d, pad

    targets = quarter_targets(labels)

    def loss(reader: nn.Module) -> torch.Tensor:
        rows = torch.randint(len(images), (_READ,), device=images.device)
        pixels = images[rows].float() / 127.5 - 1
        shape = (_READ, 1, 1, 1)
        soft = avg_pool2d(pad(pixels, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        blur = (torch.rand(shape, device=images.device) - 0.5).clamp(min=0)
        noise = 0.1 * torch.rand(shape, device=images.device) * torch.randn_like(pixels)
        tint = 0.03 * torch.randn((_READ, 3, 1, 1), device=images.device)
        logits = reader(quarters_of(pixels + blur * (soft - pixels) + noise + tint))
        return read_loss(logits, targets[rows].flatten(0, 1))

    return fit(network.train(), loss, seconds=seconds, rate=2e-3, say=say, stop=stop, half=False, average=False)


def quarter_targets(labels: torch.Tensor) -> torch.Tensor:
    """Return what each quarter shows, int64 [n, 4, len(HEADS)], -100 where there is nothing to say."""
    import torch

    kinds, colours = labels[:, 0:8:2], labels[:, 1:8:2]
    letters = labels[:, None, 8 : 8 + LONGEST].expand(-1, len(QUARTERS), -1)
    letters = torch.where((kinds == WORD)[:, :, None], letters, -100)
    colours = torch.where(kinds > 0, colours, -100)
    background = labels[:, -1:].expand(-1, len(QUARTERS))
    return torch.cat([kinds[:, :, None], colours[:, :, None], letters, background[:, :, None]], dim=2)


def read_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the mean cross entropy over the readings of a quarter."""
    import torch
    from torch.nn.functional import cross_entropy

    heads = logits.split(HEADS, dim=1)  # type: ignore[no-untyped-call]
    losses = [cross_entropy(head.float(), targets[:, index], ignore_index=-100) for index, head in enumerate(heads)]
    return torch.stack(losses).sum()
