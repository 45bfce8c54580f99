"""What moves between the frames of videos that should not.

Videos are arrays (n, frames, height, width, 3) in [0, 1].
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def flicker(videos: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return each video's root mean square change from frame to frame, in grey levels of 255."""
    return np.asarray(255 * np.sqrt(np.mean(np.diff(videos, axis=1) ** 2, axis=(1, 2, 3, 4))))
