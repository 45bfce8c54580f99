"""Feature networks: what stands behind paired cosines and distances of distributions, beside a model's own scorer.

CLIP and DINOv2 by transformers, from weights that are on this machine; nothing is downloaded. Images are resized and
normalized here, so that the figures do not depend on an image processor's version.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from diffopt.bench.resident import Images
from diffopt.ir.errors import DiffoptError

Floats = npt.NDArray[np.float64]

KNOWN: Final = (
    "openai/clip-vit-large-patch14-336", "openai/clip-vit-large-patch14", "openai/clip-vit-base-patch32",
    "facebook/dinov2-base", "facebook/dinov2-small",
)  # fmt: skip
"""Looked for in the hub's cache, in this order."""

CMMD_SIGMA, CMMD_SCALE = 10.0, 1000.0
"""Bandwidth and scale of CMMD (Jayasumana and others 2024) on unit CLIP embeddings."""

MEAN = {"clip": (0.48145466, 0.4578275, 0.40821073), "dinov2": (0.485, 0.456, 0.406)}
DEVIATION = {"clip": (0.26862954, 0.26130258, 0.27577711), "dinov2": (0.229, 0.224, 0.225)}
_BATCH = 16


class FeatureNetwork(Protocol):
    """Turns images into feature vectors; deterministic, called by the parent between measurements."""

    name: str

    def features(self, images: Images) -> npt.NDArray[np.float32]:
        """Return one feature vector an image, (n, d)."""
        ...

    def adherence(self, images: Images, prompts: Sequence[str]) -> Floats | None:
        """Say how well each image follows its prompt, higher is better; None where the network reads no text."""
        ...


class TransformersFeatures:
    """Image embeddings of a CLIP or DINOv2 in a directory; with CLIP also those of prompts.

    Raises:
        DiffoptError: the directory holds neither.
    """

    def __init__(self, directory: Path) -> None:
        import torch
        from transformers import AutoConfig, CLIPModel, Dinov2Model

        kind = AutoConfig.from_pretrained(directory, local_files_only=True).model_type
        if kind not in MEAN:
            raise DiffoptError(
                f"a {kind} is no feature network known here", where=str(directory), hint="clip or dinov2"
            )
        self.name, self._kind, self._directory = f"{kind} {directory.name}", kind, directory
        model = {"clip": CLIPModel, "dinov2": Dinov2Model}[kind]
        self._model: Any = model.from_pretrained(directory, local_files_only=True, dtype=torch.float32).eval()
        vision = self._model.config.vision_config if kind == "clip" else self._model.config
        self._size = int(vision.image_size)

    def features(self, images: Images) -> npt.NDArray[np.float32]:
        """Return unit embeddings of images."""
        import torch

        found = []
        with torch.no_grad():
            for start in range(0, len(images), _BATCH):
                pixels = self._pixels(images[start : start + _BATCH])
                if self._kind == "clip":
                    vision = self._model.vision_model(pixel_values=pixels).pooler_output
                    found.append(self._model.visual_projection(vision))
                else:
                    found.append(self._model(pixel_values=pixels).last_hidden_state[:, 0])
        return _unit(torch.cat(found).numpy())

    def adherence(self, images: Images, prompts: Sequence[str]) -> Floats | None:
        """Return the cosine of each image and its prompt (CLIP score / 100); None where the network reads no text."""
        import torch
        from transformers import CLIPTokenizer

        if self._kind != "clip":
            return None
        tokenizer = CLIPTokenizer.from_pretrained(self._directory, local_files_only=True)
        tokens = tokenizer(list(prompts), padding=True, truncation=True, return_tensors="pt")
        with torch.no_grad():
            text = self._model.text_model(**tokens).pooler_output
            text = _unit(self._model.text_projection(text).numpy())
        return np.asarray(np.sum(self.features(images).astype(np.float64) * text, axis=1))

    def _pixels(self, images: Images) -> Any:
        import torch

        pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
        size = (self._size, self._size)
        pixels = torch.nn.functional.interpolate(pixels, size, mode="bicubic", antialias=True, align_corners=False)
        mean, deviation = (torch.tensor(table[self._kind]).view(1, 3, 1, 1) for table in (MEAN, DEVIATION))
        return (pixels.clamp(0, 1) - mean) / deviation


def network_here(cache: Path, named: str | None = None) -> TransformersFeatures | None:
    """Return the first feature network that is on this machine, or None.

    Args:
        cache: of the hub.
        named: a directory or hub id to use instead of looking for one.

    Raises:
        DiffoptError: the one that is named is not here.
    """
    if named is not None and Path(named).is_dir():
        return TransformersFeatures(Path(named))
    for name in KNOWN if named is None else (named,):
        found = sorted((cache / f"models--{name.replace('/', '--')}" / "snapshots").glob("*/config.json"))
        if found:
            return TransformersFeatures(found[-1].parent)
    if named is not None:
        raise DiffoptError("no such feature network on this machine", where=named, hint="download it first")
    return None


def gaussian_kernel(first: Floats, second: Floats) -> Floats:
    """Return CMMD's kernel of every pair of two feature sets."""
    squares = np.sum(first**2, axis=1)[:, None] + np.sum(second**2, axis=1)[None] - 2 * first @ second.T
    return np.asarray(CMMD_SCALE * np.exp(-squares / (2 * CMMD_SIGMA**2)))


def _unit(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    lengths = np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    return np.asarray(values / lengths, dtype=np.float32)
