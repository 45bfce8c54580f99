"""Find edges as Canny (1986) does, in the form of OpenCV: Sobel gradients of the strongest channel, thinned, followed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

LOW, HIGH = 100, 200
"""A gradient above HIGH starts an edge, one above LOW continues it; of the sum of both directions, images of 0 to 255."""
_STEEP = 0.41421356
"""Tangent of 22.5 degrees: between it and its inverse a gradient is diagonal."""

Edges = npt.NDArray[np.bool_]


def canny(images: npt.NDArray[np.uint8], low: int = LOW, high: int = HIGH) -> Edges:
    """Return the edges bool [n, h, w] of images uint8 [n, h, w, 3], one pixel wide; like `cv2.Canny(image, low, high)`."""
    across, down = _gradients(images)
    size = np.abs(across) + np.abs(down)
    crest = _crest(across, down, size) & (size > low)
    edges = crest & (size > high)
    while True:
        further = crest & _spread(edges)
        if (further == edges).all():
            return edges
        edges = further


def as_condition(edges: Edges) -> npt.NDArray[np.uint8]:
    """Return edges bool [..., h, w] as white lines on black, uint8 [..., h, w, 3]."""
    return np.repeat(edges[..., None], 3, axis=-1).astype(np.uint8) * np.uint8(255)


def _gradients(images: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    padded = np.pad(images.astype(np.int32), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    above, level, below = padded[:, :-2], padded[:, 1:-1], padded[:, 2:]
    smooth, fall = above + 2 * level + below, below - above
    across = smooth[:, :, 2:] - smooth[:, :, :-2]
    down = fall[:, :, :-2] + 2 * fall[:, :, 1:-1] + fall[:, :, 2:]
    strongest = (np.abs(across) + np.abs(down)).argmax(axis=-1)[..., None]
    return np.take_along_axis(across, strongest, -1)[..., 0], np.take_along_axis(down, strongest, -1)[..., 0]


def _crest(across: npt.NDArray[np.int32], down: npt.NDArray[np.int32], size: npt.NDArray[np.int32]) -> Edges:
    """Say where the gradient is larger than on both sides of the edge; of two equal ones the first counts."""
    wide = np.pad(size, ((0, 0), (1, 1), (1, 1)))
    height, width = size.shape[1:]

    def beside(rows: int, columns: int) -> npt.NDArray[np.int32]:
        return wide[:, 1 + rows : 1 + rows + height, 1 + columns : 1 + columns + width]

    flat, steep = np.abs(down) < _STEEP * np.abs(across), np.abs(down) * _STEEP > np.abs(across)
    level = (size > beside(0, -1)) & (size >= beside(0, 1))
    upright = (size > beside(-1, 0)) & (size >= beside(1, 0))
    falling = (size > beside(-1, -1)) & (size > beside(1, 1))
    rising = (size > beside(-1, 1)) & (size > beside(1, -1))
    diagonal = np.where((across < 0) ^ (down < 0), rising, falling)
    found: Edges = np.where(flat, level, np.where(steep, upright, diagonal))
    return found


def _spread(edges: Edges) -> Edges:
    """Return edges with their eight neighbours."""
    tall = edges.copy()
    tall[:, 1:] |= edges[:, :-1]
    tall[:, :-1] |= edges[:, 1:]
    wide = tall.copy()
    wide[:, :, 1:] |= tall[:, :, :-1]
    wide[:, :, :-1] |= tall[:, :, 1:]
    return wide
