"""Stage `scorer`: the network that reads scenes back, trained on rendered and slightly spoiled scenes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from diffopt.bench.models.shapes.scenes import LABELS_PER_SCENE, Labels
from diffopt.bench.models.shapes.scorer import WEIGHTS, Scorer, new_network, split_heads
from diffopt.bench.models.shapes.training import cosine, drawn, log

if TYPE_CHECKING:
    import torch

STEPS, BATCH = 2400, 64


def run() -> None:
    """Train on every split but `heldout`, save, and check on held-out scenes.

    The scorer is the judge, so it sees the colour-shape pairs that the generator never does.
    """
    import torch

    torch.manual_seed(4)
    rng = np.random.default_rng(4)
    data = drawn(20_000, 4, "train", "calibration", "search")
    network = new_network().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-2)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * cosine(step, STEPS)
        rows = rng.integers(len(data.images), size=BATCH)
        loss = _loss(network(_spoil(data.images[rows], rng)), data.labels[rows])
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()
        if (step + 1) % 500 == 0:
            log("scorer", f"{step + 1}/{STEPS} loss {loss.item():.4f}")
    _save(network)
    log("scorer", f"right on {100 * accuracy(4000):.2f} % of 4000 held-out rendered scenes")


def accuracy(count: int, seed: int = 5) -> float:
    """Return the share of held-out rendered scenes that the saved scorer reads right in every attribute."""
    held = drawn(count, seed, "heldout")
    read = Scorer.load().read(held.images.astype(np.float32) / np.float32(255))
    return float((read == held.labels).all(axis=1).mean())


def _loss(logits: torch.Tensor, labels: Labels) -> torch.Tensor:
    import torch
    from torch.nn.functional import cross_entropy

    target = torch.from_numpy(labels.astype(np.int64))
    total = torch.zeros(())
    for index, head in enumerate(split_heads(logits)):
        column = target[:, index].clone()
        if index < LABELS_PER_SCENE - 1 and index % 3:
            column[target[:, index - index % 3] == 0] = -100
        total = total + cross_entropy(head, column, reduction="sum") / len(labels)
    return total / 6


def _spoil(images: npt.NDArray[np.uint8], rng: np.random.Generator) -> torch.Tensor:
    """Return [n, 3, 64, 64] in [-1, 1] with a little noise, tint and blur, as a generator's flaws would add."""
    import torch
    from torch.nn.functional import avg_pool2d, pad

    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    count = len(images)
    noise = rng.uniform(0, 0.1, (count, 1, 1, 1)) * rng.standard_normal(pixels.shape)
    tint = 0.03 * rng.standard_normal((count, 3, 1, 1))
    blur = torch.from_numpy(rng.uniform(-0.5, 0.7, (count, 1, 1, 1)).clip(0)).float()
    soft = avg_pool2d(pad(pixels, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    spoiled = pixels + blur * (soft - pixels) + torch.from_numpy(noise + tint).float()
    return spoiled.contiguous(memory_format=torch.channels_last)


def _save(network: torch.nn.Sequential) -> None:
    import torch
    from safetensors.torch import save_file

    state = {
        name: (value.to(torch.float16) if value.is_floating_point() else value).contiguous()
        for name, value in network.state_dict().items()
    }
    save_file(state, WEIGHTS)
    WEIGHTS.chmod(0o644)
