"""How closely edges keep to others."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Edges = npt.NDArray[np.bool_]


def agreement(found: Edges, wanted: Edges) -> npt.NDArray[np.float64]:
    """Return the F1 score of each image's edges, bool [n, h, w]; the same pixel is asked for.

    An image without edges agrees with another that has none.
    """
    both = (found & wanted).sum(axis=(1, 2))
    either = found.sum(axis=(1, 2)) + wanted.sum(axis=(1, 2))
    return np.asarray(np.where(either > 0, 2 * both / np.maximum(either, 1), 1.0))
