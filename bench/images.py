"""Checks on images, and images as files."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from diffopt.bench.disk import make_folder, write_bytes, write_text
from diffopt.bench.references import References
from diffopt.bench.resident import Images

_FLAT = 1e-4
_SLACK = 1e-3
_SHOWN = 6


def fault(images: Images, *, count: int, height: int, width: int) -> str | None:
    """Say what is wrong with images from a pipeline, or None: shape, NaN, range, or one flat colour."""
    if images.shape != (count, height, width, 3):
        return f"images of shape {images.shape}, want {(count, height, width, 3)}"
    if not np.isfinite(images).all():
        return f"{np.count_nonzero(~np.isfinite(images))} of {images.size} values are NaN or infinite"
    if images.min() < -_SLACK or images.max() > 1 + _SLACK:
        return f"values from {images.min():.3g} to {images.max():.3g}, want 0 to 1"
    if np.ptp(images, axis=(1, 2)).max(axis=1).min() < _FLAT:
        return "an image of one flat colour"
    return None


def repeats(images: Images) -> bool:
    """Say whether two of the images are equal."""
    return len({image.tobytes() for image in images}) < len(images)


def to_bytes(images: Images) -> npt.NDArray[np.uint8]:
    """Round images to 8 bits the way diffusers does for PIL."""
    return np.asarray((images * 255).round().clip(0, 255), dtype=np.uint8)


def frames_of(videos: Images, frames: int) -> Images:
    """Return videos whose frames stand one below the other as images, one frame after the other."""
    count, height, *rest = videos.shape
    return videos.reshape(count * frames, height // frames, *rest)


def _strip(video: Images, frames: int) -> Images:
    """Return some frames of a video side by side; an image as it is."""
    if frames <= 1:
        return video
    chosen = np.linspace(0, frames - 1, min(frames, _SHOWN)).round().astype(int)
    return np.concatenate(list(frames_of(video[None], frames)[chosen]), axis=1)


def save_pairs(folder: Path, images: Images, known: References, psnr: Sequence[float], *, frames: int = 1) -> None:
    """Write 000-baseline.png, 000-candidate.png, ... and images.json that names prompt, seed and PSNR of each.

    Of a video some of its frames are written, side by side.
    """
    from PIL import Image

    make_folder(folder)
    entries = []
    for index, (prompt, seed, noise) in enumerate(zip(known.prompts, known.seeds, psnr, strict=True)):
        names = {"baseline": f"{index:03d}-baseline.png", "candidate": f"{index:03d}-candidate.png"}
        for side, array in (("baseline", known.images[index]), ("candidate", images[index])):
            buffer = io.BytesIO()
            Image.fromarray(to_bytes(_strip(array, frames))).save(buffer, format="PNG")
            write_bytes(folder / names[side], buffer.getvalue())
        entries.append({"prompt": prompt, "seed": int(seed), "psnr": float(noise), **names})
    write_text(folder / "images.json", json.dumps({"version": 1, "images": entries}, indent=1))
