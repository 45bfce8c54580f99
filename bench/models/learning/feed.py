"""What a training step draws from: latents and text states that lie on the device, picked inside the step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch
    from torch import nn

DROPOUT = 0.1


@dataclass(frozen=True)
class Feed:
    """Examples on the device; `draw` reads no value back, so a CUDA graph can hold it.

    Args:
        clean: what is to be generated, [n, ...].
        texts: states by name, each [n * wordings, ...]; the wordings of example i start at i * wordings.
        empty: the states of no prompt, by the same names, each [...].
        labels: further values of the examples by name, each [n, ...].
        constants: what every step needs, by name.
        dropout: share of the captions that a step replaces by the empty one, for classifier-free guidance.
    """

    clean: torch.Tensor
    texts: dict[str, torch.Tensor] = field(default_factory=dict)
    empty: dict[str, torch.Tensor] = field(default_factory=dict)
    labels: dict[str, torch.Tensor] = field(default_factory=dict)
    constants: dict[str, torch.Tensor] = field(default_factory=dict)
    dropout: float = DROPOUT

    def draw(self, count: int) -> dict[str, torch.Tensor]:
        """Return `count` random examples: "clean" and every state and label, floats as float32."""
        import torch

        device, total = self.clean.device, len(self.clean)
        rows = torch.randint(total, (count,), device=device)
        drawn = {"clean": self.clean[rows].float(), **{name: value[rows] for name, value in self.labels.items()}}
        dropped = torch.rand(count, device=device) < self.dropout
        for name, states in self.texts.items():
            wordings = len(states) // total
            chosen = states[rows * wordings + torch.randint(wordings, (count,), device=device)]
            shape = (count,) + (1,) * (chosen.ndim - 1)
            drawn[name] = torch.where(dropped.view(shape), self.empty[name], chosen).float()
        return drawn


def encode_images(vae: nn.Module, images: npt.NDArray[np.uint8], batch: int = 500) -> torch.Tensor:
    """Return the latents float16 [n, 4, h, w] of images uint8 [n, H, W, 3], on the device of the autoencoder."""
    import torch

    device = next(vae.parameters()).device
    encode: Any = vae.encode
    parts = []
    with torch.no_grad():
        for start in range(0, len(images), batch):
            pixels = torch.from_numpy(np.array(images[start : start + batch])).to(device)
            scaled = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
            parts.append(encode(scaled).latent_dist.mean.half())
    return torch.cat(parts)


def encode_texts(
    encode: Callable[[list[str]], dict[str, torch.Tensor]], captions: Sequence[str], batch: int = 2000
) -> dict[str, torch.Tensor]:
    """Return the states float16 of captions, by name, in the captions' order."""
    import torch

    parts: dict[str, list[torch.Tensor]] = {}
    with torch.no_grad():
        for start in range(0, len(captions), batch):
            for name, states in encode(list(captions[start : start + batch])).items():
                parts.setdefault(name, []).append(states.half())
    return {name: torch.cat(found) for name, found in parts.items()}
