"""Read scenes back from images, to judge whether an image follows its prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from diffopt.bench.models.shapes.captions import parse
from diffopt.bench.models.shapes.drawing import SIDE
from diffopt.bench.models.shapes.scenes import BACKGROUNDS, COLOURS, LABELS_PER_SCENE, POSITIONS, SHAPES, SIZES, Labels

if TYPE_CHECKING:
    import torch

WEIGHTS = Path(__file__).resolve().parent / "scorer.safetensors"
FEATURES = 96
"""Length of a feature vector."""
_BATCH = 256
_HEADS = (len(SHAPES) + 1, len(COLOURS), len(SIZES)) * len(POSITIONS) + (len(BACKGROUNDS),)

Images = npt.NDArray[np.float32]


def new_network() -> torch.nn.Sequential:
    """Return the untrained network: images float32 [n, 3, 64, 64] in [-1, 1] to features [n, FEATURES] to logits."""
    from torch import nn

    def block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )

    body = nn.Sequential(
        block(3, 24, 2),
        block(24, 32, 1),
        block(32, 48, 2),
        block(48, 48, 1),
        block(48, 64, 2),
        block(64, 64, 1),
        nn.Conv2d(64, 24, 1),
        nn.Flatten(),
        nn.Linear(24 * 8 * 8, FEATURES),
        nn.ReLU(),
    )
    return nn.Sequential(body, nn.Linear(FEATURES, sum(_HEADS)))


def split_heads(logits: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Cut logits [n, sum] into one [n, classes] for each label of a scene."""
    heads: tuple[torch.Tensor, ...] = logits.split(_HEADS, dim=1)  # type: ignore[no-untyped-call]
    return heads


@dataclass(frozen=True)
class Scorer:
    """A trained reader of demo:shapes images; not changed by use."""

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

        Colour and size of an empty position read 0, as in `Scene.labels`.
        """
        labels = np.zeros((len(images), LABELS_PER_SCENE), dtype=np.int8)
        features = self._features(images)
        logits = self.network[1](features).detach()
        for index, head in enumerate(split_heads(logits)):
            labels[:, index] = head.argmax(dim=1).numpy()
        slots = labels[:, :-1].reshape(len(images), len(POSITIONS), 3)
        slots[slots[:, :, 0] == 0] = 0
        return labels

    def correct(self, images: Images, prompts: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Say for each image [n, h, w, 3] whether every attribute of every object and the background are right."""
        return np.asarray((self.read(images) == _wanted(prompts)).all(axis=1))

    def attributes_correct(self, images: Images, prompts: Sequence[str]) -> npt.NDArray[np.float64]:
        """Return for each image the share of right labels among those of the prompt's objects and the background."""
        wanted = _wanted(prompts)
        asked = np.repeat(wanted[:, :-1:3] > 0, 3, axis=1)
        asked = np.concatenate([asked, np.ones((len(wanted), 1), dtype=bool)], axis=1)
        right = (self.read(images) == wanted) & asked
        return np.asarray(right.sum(axis=1) / asked.sum(axis=1))

    def features(self, images: Images) -> npt.NDArray[np.float32]:
        """Return features float32 [n, FEATURES] of images [n, h, w, 3] in [0, 1], for a distance of distributions."""
        return np.asarray(self._features(images).numpy(), dtype=np.float32)

    def _features(self, images: Images) -> torch.Tensor:
        import torch

        batches = [self._batch(images[start : start + _BATCH]) for start in range(0, len(images), _BATCH)]
        return torch.cat(batches) if batches else torch.empty(0, FEATURES)

    def _batch(self, images: Images) -> torch.Tensor:
        import torch

        pixels = torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32)).permute(0, 3, 1, 2)
        if tuple(pixels.shape[2:]) != (SIDE, SIDE):
            pixels = torch.nn.functional.interpolate(pixels, (SIDE, SIDE), mode="bilinear", antialias=True)
        with torch.no_grad():
            features: torch.Tensor = self.network[0](pixels * 2 - 1)
        return features


def _wanted(prompts: Sequence[str]) -> Labels:
    rows = [parse(prompt).labels() for prompt in prompts]
    return np.stack(rows) if rows else np.zeros((0, LABELS_PER_SCENE), dtype=np.int8)
