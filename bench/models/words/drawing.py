"""Draw scenes of demo:words as 64x64 RGB images; where a thing lies in its quarter and how large it is are chance."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from diffopt.bench.models.shapes import drawing as shapes
from diffopt.bench.models.words.glyphs import GAP, HEIGHT, WIDTH, dots
from diffopt.bench.models.words.scenes import QUARTERS, SHAPES, WORD, Labels

SIDE, QUARTER = 64, 32
DOT = 1.5
"""Side of one dot of a letter, in pixels."""
_RADII = (5.5, 9.5)
_EDGE = 1.5
_SAMPLES = 4

Image = npt.NDArray[np.float32]


def draw(labels: Labels, rng: np.random.Generator) -> Image:
    """Draw label vectors int8 [n, LABELS_PER_SCENE] as float32 [n, 64, 64, 3] in [0, 1]."""
    canvas = np.empty((len(labels), SIDE, SIDE, 3), dtype=np.float32)
    canvas[:] = shapes.BACKGROUND_RGB[labels[:, -1]][:, None, None, :]
    for slot in range(len(QUARTERS)):
        top, left = QUARTER * (slot // 2), QUARTER * (slot % 2)
        kinds, colours = labels[:, 2 * slot], labels[:, 2 * slot + 1]
        for kind in range(1, WORD + 1):
            chosen = np.flatnonzero(kinds == kind)
            if not len(chosen):
                continue
            if kind == WORD:
                cover = _word_cover(labels[chosen, 2 * len(QUARTERS) : -1], rng)
            else:
                cover = _shape_cover(SHAPES[kind - 1], len(chosen), rng)
            patch = canvas[chosen, top : top + QUARTER, left : left + QUARTER]
            ink = shapes.COLOUR_RGB[colours[chosen], None, None]
            canvas[chosen, top : top + QUARTER, left : left + QUARTER] = patch + cover[..., None] * (ink - patch)
    return canvas


def _shape_cover(name: str, count: int, rng: np.random.Generator) -> Image:
    radius = rng.uniform(*_RADII, count).astype(np.float32)
    reach = (QUARTER / 2 - _EDGE - 1.1 * radius)[:, None]
    centre = QUARTER / 2 + reach * rng.uniform(-1, 1, (count, 2)).astype(np.float32)
    offsets = np.arange(QUARTER, dtype=np.float32) + np.float32(0.5)
    x = (offsets[None, None, :] - centre[:, 0, None, None]).astype(np.float32)
    y = (offsets[None, :, None] - centre[:, 1, None, None]).astype(np.float32)
    distance = {**shapes.DISTANCES, "diamond": _diamond, "crescent": _crescent}[name]
    cover: Image = np.clip(0.5 - distance(x, y, radius[:, None, None]), 0, 1).astype(np.float32)
    return cover


def _word_cover(letters: npt.NDArray[np.int8], rng: np.random.Generator) -> Image:
    count = len(letters)
    page = np.pad(dots(letters), ((0, 0), (1, 1), (1, 1)))
    width = DOT * ((letters > 0).sum(axis=1) * (WIDTH + GAP) - GAP)
    room = np.stack([QUARTER - 2 * _EDGE - width, np.full(count, QUARTER - 2 * _EDGE - DOT * HEIGHT)], axis=1)
    corner = _EDGE + room * rng.uniform(0, 1, (count, 2))
    points = (np.arange(QUARTER * _SAMPLES) + 0.5) / _SAMPLES
    columns, rows = (
        np.clip(np.floor((points - corner[:, axis, None]) / DOT).astype(int) + 1, 0, page.shape[2 - axis] - 1)
        for axis in (0, 1)
    )
    fine = page[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
    cover: Image = fine.reshape(count, QUARTER, _SAMPLES, QUARTER, _SAMPLES).mean(axis=(2, 4), dtype=np.float32)
    return cover


def _diamond(x: Image, y: Image, r: Image) -> Image:
    distance: Image = (np.abs(x) + np.float32(0.75) * np.abs(y) - np.float32(0.8) * r) * np.float32(0.8)
    return distance


def _crescent(x: Image, y: Image, r: Image) -> Image:
    distance: Image = np.maximum(np.hypot(x, y) - r, np.float32(0.85) * r - np.hypot(x - np.float32(0.5) * r, y))
    return distance
