"""How near videos are to reference videos: frames in pairs, and what moves between frames that should not.

Videos are float32 arrays (n, frames, height, width, 3) in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from diffopt.bench.fidelity import psnr, ssim
from diffopt.bench.statistics import median, percentile

Videos = npt.NDArray[np.float32]


@dataclass(frozen=True)
class VideoFidelity:
    """What comparing videos gave.

    Args:
        psnr_median, psnr_p10: over videos, of each one's median frame in dB; psnr_worst_frame: over all frames.
        ssim_median: over videos, of each one's median frame.
        flicker: root mean square change from frame to frame in grey levels of 255, the median over videos;
            baseline_flicker the references'; added_flicker the same of the difference between the two, which is 0 where
            an error stays as it is over time.
    """

    psnr_median: float
    psnr_p10: float
    psnr_worst_frame: float
    ssim_median: float
    flicker: float
    baseline_flicker: float
    added_flicker: float
    videos: int
    frames: int


def compare_videos(videos: Videos, references: Videos) -> VideoFidelity:
    """Compare videos with the baseline's of the same prompts and seeds.

    Raises:
        ValueError: their shapes differ, or they are no videos of two frames at least.
    """
    if videos.shape != references.shape or videos.ndim != 5 or videos.shape[1] < 2:
        raise ValueError(f"videos of shapes {videos.shape} and {references.shape}, want two equal ones of some frames")
    noise = np.stack([psnr(one, other) for one, other in zip(videos, references, strict=True)])
    structure = np.stack([ssim(one, other) for one, other in zip(videos, references, strict=True)])
    return VideoFidelity(
        psnr_median=median(np.median(noise, axis=1).tolist()),
        psnr_p10=percentile(np.median(noise, axis=1).tolist(), 10),
        psnr_worst_frame=float(noise.min()),
        ssim_median=median(np.median(structure, axis=1).tolist()),
        flicker=median(flicker(videos).tolist()),
        baseline_flicker=median(flicker(references).tolist()),
        added_flicker=median(flicker(videos - references).tolist()),
        videos=len(videos),
        frames=videos.shape[1],
    )


def flicker(videos: Videos) -> npt.NDArray[np.float64]:
    """Return each video's root mean square change from frame to frame, in grey levels of 255."""
    steps = np.diff(videos.astype(np.float64), axis=1)
    return np.asarray(255 * np.sqrt(np.mean(steps**2, axis=(1, 2, 3, 4))))
