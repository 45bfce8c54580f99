"""What a comparison says beside its medians: structure over scales, features in pairs, intervals, bands on both sides."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from diffopt.bench.resident import Images

Floats = npt.NDArray[np.float64]

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of the scales of MS-SSIM, finest first (Wang, Simoncelli, Bovik 2003)."""

_RESAMPLES = 2000
_SMALLEST = 11


def ms_ssim(images: Images, references: Images, parts: Callable[[Floats, Floats], tuple[Floats, Floats]]) -> Floats:
    """Return the structural similarity over scales of each pair, over as many of five as the images are large enough for.

    Args:
        parts: gives structural similarity and its contrast part of each pair, at one scale.
    """
    first, second = images.astype(np.float64), references.astype(np.float64)
    smallest = min(first.shape[1:3])
    count = max(1, min(len(SCALE_WEIGHTS), int(np.log2(smallest / _SMALLEST)) + 1 if smallest >= _SMALLEST else 1))
    weights = np.asarray(SCALE_WEIGHTS[:count]) / sum(SCALE_WEIGHTS[:count])
    product = np.ones(len(first))
    for scale, weight in enumerate(weights):
        whole, contrast = parts(first, second)
        product *= np.maximum(whole if scale == count - 1 else contrast, 0.0) ** weight
        first, second = _halved(first), _halved(second)
    return product


def cosines(first: Floats, second: Floats) -> Floats:
    """Return the cosine of each pair of feature vectors."""
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return np.asarray(np.sum(first * second, axis=1) / np.maximum(lengths, 1e-12))


def interval(
    values: Floats, rng: np.random.Generator, of: Callable[..., Floats] = np.median, share: float = 95.0
) -> tuple[float, float]:
    """Return the bootstrap interval of a statistic over prompts; whole prompts are drawn again."""
    draws = of(values[rng.integers(len(values), size=(_RESAMPLES, len(values)))], axis=1)
    lo, hi = np.percentile(draws, [(100 - share) / 2, (100 + share) / 2])
    return float(lo), float(hi)


def too_good(drop: tuple[float, float] | None, seed_drop: tuple[float, float] | None) -> str:
    """Say what is better than it can honestly be, or "": an improvement beyond what another seed of the baseline shows.

    Args:
        drop: interval of how many prompts fewer are right than with the baseline (a share of 1).
        seed_drop: the same of the baseline at other seeds.
    """
    if drop is None or seed_drop is None or drop[1] >= min(0.0, seed_drop[0]):
        return ""
    return f"{-100 * drop[1]:.1f} points or more better than the baseline, beyond what its seeds differ by"


def _halved(images: Floats) -> Floats:
    height, width = images.shape[1] // 2 * 2, images.shape[2] // 2 * 2
    even = images[:, :height, :width]
    return np.asarray(even.reshape(len(even), height // 2, 2, width // 2, 2, -1).mean(axis=(2, 4)))
