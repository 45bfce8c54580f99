"""Stage `text`: the text encoder learns to say what a caption describes, before the denoiser reads it."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np

from diffopt.bench.models.shapes import parts
from diffopt.bench.models.shapes.captions import caption
from diffopt.bench.models.shapes.scenes import BACKGROUNDS, COLOURS, POSITIONS, SHAPES, SIZES, Scene, random_scenes
from diffopt.bench.models.shapes.training import cosine, log

if TYPE_CHECKING:
    import torch
    from transformers import CLIPTextModel, CLIPTokenizer

STEPS, BATCH = 1000, 64
_SLOTS = len(POSITIONS) + 1


def run() -> None:
    """Train the text encoder with a readout of six queries (five positions, the background), save the encoder."""
    import torch
    from torch import nn

    torch.manual_seed(6)
    rng = random.Random(6)
    tokenizer = parts.load("tokenizer")
    encoder = parts.new_text_encoder(tokenizer)
    readout = Readout()
    weights = [*encoder.parameters(), *readout.weights()]
    optimizer = torch.optim.AdamW(weights, lr=1e-3, weight_decay=1e-2)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * cosine(step, STEPS)
        scenes = random_scenes(BATCH, rng, "train")
        loss, right = readout.judge(encode(encoder, tokenizer, _captions(scenes, rng)), scenes)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        if (step + 1) % 250 == 0:
            log("text", f"{step + 1}/{STEPS} loss {loss.item():.4f} right {100 * right:.0f} %")
    parts.save("text_encoder", encoder.eval())
    scenes = random_scenes(1000, rng, "search")
    with torch.no_grad():
        _, right = readout.judge(encode(encoder, tokenizer, _captions(scenes, rng)), scenes)
    log("text", f"saved; scene right from {100 * right:.1f} % of 1000 other captions")


def encode(encoder: CLIPTextModel, tokenizer: CLIPTokenizer, captions: list[str]) -> torch.Tensor:
    """Return the encoder's last hidden states [n, 32, 128], as the pipeline feeds them to the denoiser."""
    tokens = tokenizer(
        captions, padding="max_length", max_length=parts.TOKENS, truncation=True, return_tensors="pt"
    ).input_ids
    states: torch.Tensor = encoder(tokens)[0]
    return states


def _captions(scenes: list[Scene], rng: random.Random) -> list[str]:
    return [caption(scene, rng) for scene in scenes]


class Readout:
    """Six queries (five positions, the background) that attend over an encoder's states and name the scene."""

    def __init__(self) -> None:
        import torch
        from torch import nn

        self._networks = nn.ModuleDict(
            {
                "attention": nn.MultiheadAttention(128, 4, batch_first=True),
                "slot": nn.Linear(128, len(SHAPES) + 1 + len(COLOURS) + len(SIZES)),
                "background": nn.Linear(128, len(BACKGROUNDS)),
            }
        )
        self._queries = nn.Parameter(torch.randn(1, _SLOTS, 128))

    def weights(self) -> list[torch.nn.Parameter]:
        """Return what is trained with the encoder."""
        return [*self._networks.parameters(), self._queries]

    def judge(self, states: torch.Tensor, scenes: list[Scene]) -> tuple[torch.Tensor, float]:
        """Return the loss on states [n, tokens, 128], and the share of scenes right in all of their labels."""
        import torch
        from torch.nn.functional import cross_entropy

        target = torch.from_numpy(np.stack([scene.labels() for scene in scenes]).astype(np.int64))
        slots = target[:, :-1].reshape(len(scenes), len(POSITIONS), 3)
        slots = torch.where((slots[:, :, :1] == 0) & torch.tensor([False, True, True]), -100, slots)
        queries = self._queries.expand(len(scenes), -1, -1)
        read, _ = self._networks["attention"](queries, states, states, need_weights=False)
        heads = self._networks["slot"](read[:, :-1]).split([len(SHAPES) + 1, len(COLOURS), len(SIZES)], dim=2)
        background = self._networks["background"](read[:, -1])
        loss = cross_entropy(background, target[:, -1])
        right = background.argmax(dim=1) == target[:, -1]
        for index, head in enumerate(heads):
            wanted = slots[:, :, index]
            loss = loss + cross_entropy(head.flatten(0, 1), wanted.flatten(), ignore_index=-100)
            right &= ((head.argmax(dim=2) == wanted) | (wanted == -100)).all(dim=1)
        return loss, float(right.float().mean())
