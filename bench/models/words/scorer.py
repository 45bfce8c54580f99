"""Read scenes of demo:words back from images: one small network looks at each quarter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from diffopt.bench.models.words.captions import parse
from diffopt.bench.models.words.drawing import QUARTER, SIDE
from diffopt.bench.models.words.scenes import (
    BACKGROUNDS,
    COLOURS,
    LABELS_PER_SCENE,
    LETTERS,
    LONGEST,
    QUARTERS,
    WORD,
    Labels,
)

if TYPE_CHECKING:
    import torch

WEIGHTS = Path(__file__).resolve().parent / "weights" / "scorer" / "model.safetensors"
FEATURES = 96
"""Length of a feature vector."""
HEADS = (WORD + 1, len(COLOURS), *(len(LETTERS) + 1,) * LONGEST, len(BACKGROUNDS))
"""Classes of each reading of a quarter: kind, colour, letters, background."""
_BATCH = 128

Images = npt.NDArray[np.float32]


def new_network() -> torch.nn.Sequential:
    """Return the untrained network: quarters float32 [n, 3, 32, 32] in [-1, 1] to features to logits of HEADS."""
    from torch import nn

    def block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
        )

    body = nn.Sequential(
        block(3, 24, 1),
        block(24, 32, 2),
        block(32, 32, 1),
        block(32, 48, 2),
        block(48, 64, 1),
        nn.Conv2d(64, 24, 1),
        nn.Flatten(),
        nn.Linear(24 * 8 * 8, FEATURES),
        nn.ReLU(),
    )
    return nn.Sequential(body, nn.Linear(FEATURES, sum(HEADS)))


def quarters_of(pixels: torch.Tensor) -> torch.Tensor:
    """Cut images [n, 3, 64, 64] into quarters [n * 4, 3, 32, 32], in the order of QUARTERS."""
    cut = pixels.reshape(len(pixels), pixels.shape[1], 2, QUARTER, 2, QUARTER)
    return cut.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)


@dataclass(frozen=True)
class Scorer:
    """A trained reader of demo:words images; not changed by use."""

    network: torch.nn.Sequential

    @classmethod
    def load(cls, path: Path = WEIGHTS) -> Scorer:
        """Load the weights (fp16 safetensors) as float32."""
        from safetensors.torch import load_file

        network = new_network()
        state = load_file(path)
        network.load_state_dict({name: v.float() if v.is_floating_point() else v for name, v in state.items()})
        return cls(network.eval())

    def read(self, images: Images) -> Labels:
        """Read label vectors int8 [n, LABELS_PER_SCENE] from images float32 [n, h, w, 3] in [0, 1].

        The background is what most quarters say; letters are read where a quarter holds a word.
        """
        labels = np.zeros((len(images), LABELS_PER_SCENE), dtype=np.int8)
        logits = self.network[1](self._quarters(images)).detach().reshape(len(images), len(QUARTERS), -1)
        found = np.stack([head.argmax(dim=2).numpy() for head in logits.split(HEADS, dim=2)], axis=2).astype(np.int8)
        kinds, colours, letters = found[:, :, 0], found[:, :, 1], found[:, :, 2 : 2 + LONGEST]
        labels[:, 0:8:2] = kinds
        labels[:, 1:8:2] = np.where(kinds > 0, colours, 0)
        labels[:, 8:-1] = np.where((kinds == WORD)[:, :, None], letters, 0).max(axis=1)
        # Two words in one image can never be what a prompt asks for; kinds already differ then.
        labels[:, -1] = logits.split(HEADS, dim=2)[-1].sum(dim=1).argmax(dim=1).numpy()
        return labels

    def correct(self, images: Images, prompts: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Say for each image [n, h, w, 3] whether every thing, every letter and the background are right."""
        return np.asarray((self.read(images) == _wanted(prompts)).all(axis=1))

    def attributes_correct(self, images: Images, prompts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Return for each image the share of right labels; empty quarters count too."""
        return np.asarray((self.read(images) == _wanted(prompts)).mean(axis=1))

    def features(self, images: Images) -> npt.NDArray[np.float32]:
        """Return features float32 [n, FEATURES] of images [n, h, w, 3] in [0, 1]: the mean over the quarters."""
        quarters = self._quarters(images).reshape(len(images), len(QUARTERS), FEATURES)
        return np.asarray(quarters.mean(dim=1).numpy(), dtype=np.float32)

    def _quarters(self, images: Images) -> torch.Tensor:
        import torch

        batches = [self._batch(images[start : start + _BATCH]) for start in range(0, len(images), _BATCH)]
        return torch.cat(batches) if batches else torch.empty(0, FEATURES)

    def _batch(self, images: Images) -> torch.Tensor:
        import torch

        pixels = torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32)).permute(0, 3, 1, 2)
        if tuple(pixels.shape[2:]) != (SIDE, SIDE):
            pixels = torch.nn.functional.interpolate(pixels, (SIDE, SIDE), mode="bilinear", antialias=True)
        with torch.no_grad():
            features: torch.Tensor = self.network[0](quarters_of(pixels * 2 - 1))
        return features


def _wanted(prompts: Sequence[str]) -> Labels:
    rows = [parse(prompt).labels() for prompt in prompts]
    return np.stack(rows) if rows else np.zeros((0, LABELS_PER_SCENE), dtype=np.int8)
