"""Draw scenes as 64x64 RGB images, anti-aliased by signed distance."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from diffopt.bench.models.shapes.scenes import POSITIONS, SHAPES, Labels

SIDE = 64
"""Width and height of an image, in pixels."""

COLOUR_RGB = np.array(
    [
        [222, 32, 38],
        [255, 138, 8],
        [250, 226, 28],
        [28, 158, 60],
        [22, 208, 232],
        [40, 84, 246],
        [142, 44, 176],
        [255, 132, 196],
    ],
    dtype=np.float32,
) / np.float32(255)
BACKGROUND_RGB = np.array(
    [[250, 250, 250], [8, 8, 8], [128, 128, 128], [222, 204, 166], [20, 26, 82]], dtype=np.float32
) / np.float32(255)
CENTRES = np.array([[11.5, 32], [52.5, 32], [32, 11.5], [32, 52.5], [32, 32]], dtype=np.float32)
_RADII = np.array([5.5, 9.5], dtype=np.float32)
_PLACE_JITTER = 0.75
_RADIUS_JITTER = 0.04
_HALF_WINDOW = 13
_MARGIN = 4

Image = npt.NDArray[np.float32]
Distance = Callable[[Image, Image, Image], Image]


def draw(labels: Labels, rng: np.random.Generator) -> Image:
    """Draw label vectors int8 [n, LABELS_PER_SCENE] as float32 [n, 64, 64, 3] in [0, 1].

    `rng` jitters each object's centre (up to 0.75 pixels) and radius (up to 4 %).
    """
    count = len(labels)
    side = SIDE + 2 * _MARGIN
    canvas = np.empty((count, side, side, 3), dtype=np.float32)
    canvas[:] = BACKGROUND_RGB[labels[:, -1]][:, None, None, :]
    for slot in range(len(POSITIONS)):
        centres = CENTRES[slot] + rng.uniform(-_PLACE_JITTER, _PLACE_JITTER, (count, 2)).astype(np.float32)
        stretch = 1 + rng.uniform(-_RADIUS_JITTER, _RADIUS_JITTER, count).astype(np.float32)
        shapes, colours, sizes = labels[:, 3 * slot], labels[:, 3 * slot + 1], labels[:, 3 * slot + 2]
        low = np.floor(CENTRES[slot]).astype(int) - _HALF_WINDOW
        columns, rows = (slice(start + _MARGIN, start + _MARGIN + 2 * _HALF_WINDOW) for start in low)
        offsets = np.arange(2 * _HALF_WINDOW, dtype=np.float32) + np.float32(0.5)
        for index, name in enumerate(SHAPES):
            chosen = np.flatnonzero(shapes == index + 1)
            if not len(chosen):
                continue
            x = (low[0] + offsets)[None, None, :] - centres[chosen, 0, None, None]
            y = (low[1] + offsets)[None, :, None] - centres[chosen, 1, None, None]
            radius = (_RADII[sizes[chosen]] * stretch[chosen])[:, None, None]
            cover = np.clip(0.5 - DISTANCES[name](x, y, radius), 0, 1)[..., None]
            patch = canvas[chosen, rows, columns]
            canvas[chosen, rows, columns] = patch + cover * (COLOUR_RGB[colours[chosen], None, None] - patch)
    return np.ascontiguousarray(canvas[:, _MARGIN:-_MARGIN, _MARGIN:-_MARGIN])


def _circle(x: Image, y: Image, r: Image) -> Image:
    distance: Image = np.hypot(x, y) - r
    return distance


def _square(x: Image, y: Image, r: Image) -> Image:
    distance: Image = np.maximum(np.abs(x), np.abs(y)) - np.float32(0.86) * r
    return distance


def _triangle(x: Image, y: Image, r: Image) -> Image:
    y = y - np.float32(0.2) * r
    slope = np.float32(0.8660254) * np.abs(x) - np.float32(0.5) * y
    distance: Image = np.maximum(slope, y) - np.float32(0.62) * r
    return distance


def _star(x: Image, y: Image, r: Image) -> Image:
    sector = np.float32(2 * np.pi / 5)
    angle = np.abs(np.mod(np.arctan2(x, -y) + sector / 2, sector) - sector / 2)
    length = np.hypot(x, y)
    inner, outer = np.float32(0.44), np.float32(1.1)
    edge = np.array([inner * np.cos(sector / 2) - outer, inner * np.sin(sector / 2)], dtype=np.float32)
    normal = np.array([edge[1], -edge[0]], dtype=np.float32) / np.hypot(*edge)
    distance: Image = (length * np.cos(angle) - outer * r) * normal[0] + length * np.sin(angle) * normal[1]
    return distance


def _cross(x: Image, y: Image, r: Image) -> Image:
    across, along = np.abs(x), np.abs(y)
    thick = np.float32(0.34) * r
    distance: Image = np.minimum(np.maximum(across - r, along - thick), np.maximum(across - thick, along - r))
    return distance


def _ring(x: Image, y: Image, r: Image) -> Image:
    distance: Image = np.abs(np.hypot(x, y) - np.float32(0.74) * r) - np.float32(0.26) * r
    return distance


DISTANCES: dict[str, Distance] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "ring": _ring,
}
