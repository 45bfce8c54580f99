"""How near images are to reference images: pairs, prompts, and distributions.

Images are float32 arrays (n, height, width, 3) in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from diffopt.bench.closeness import cosines, interval, ms_ssim, too_good
from diffopt.bench.features import FeatureNetwork, gaussian_kernel
from diffopt.bench.images import frames_of
from diffopt.bench.outcome import Fidelity
from diffopt.bench.resident import Images
from diffopt.bench.statistics import median, percentile
from diffopt.bench.video import flicker

HIGHEST_PSNR = 120.0
_WORST = 5
_WINDOW = 11
_SIGMA = 1.5
_FLIPS = 1000

Floats = npt.NDArray[np.float64]
Kernel = Callable[[Floats, Floats], Floats]
Distances = Callable[[Images, Images], Floats]


class Scorer(Protocol):
    """Judges images by their prompts.

    Called by the parent, between measurements, on images as described above. Both methods are deterministic and
    leave their arguments alone.
    """

    def correct(self, images: Images, prompts: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Say for each image whether it shows all that its prompt asks for."""
        ...

    def features(self, images: Images) -> npt.NDArray[np.float32]:
        """Return one feature vector an image, (n, d)."""
        ...


def compare(
    images: Images,
    references: Images,
    others: Images,
    *,
    prompts: Sequence[str],
    seeds: Sequence[int],
    scorer: Scorer | None,
    network: FeatureNetwork | None = None,
    rng: np.random.Generator,
    frames: int = 1,
    perceptual: Distances | None = None,
) -> Fidelity:
    """Compare a candidate's images with the baseline's of the same prompts and seeds.

    A video's PSNR is that of its worst frame, its structural similarity and its feature vector are the mean over frames.

    Args:
        images: the candidate's.
        references: the baseline's, same prompts and seeds.
        others: the baseline's at other seeds, same prompts and number: the yardstick.
        prompts: one an image; seeds likewise, to name the worst images.
        scorer: for prompt accuracy and features, or None.
        network: for features where there is no scorer, or None; distances are then CMMD's.
        rng: draws the sign flips of the yardstick.
        frames: of videos, whose frames stand one below the other; 1 or 0 for images.
        perceptual: gives the perceptual distance of each pair of images, or None.
    """
    frames = max(1, frames)

    def over_frames(values: npt.ArrayLike) -> Floats:
        found = np.asarray(values, dtype=np.float64)
        return np.asarray(found.reshape(-1, frames, *found.shape[1:]).mean(axis=1))

    pictures, known, unrelated = (frames_of(part, frames) for part in (images, references, others))
    captions = [prompt for prompt in prompts for _ in range(frames)]
    noise = worst_frame_psnr(images, references, frames)
    structure = over_frames(ssim(pictures, known))
    worst = sorted(range(len(prompts)), key=lambda index: float(noise[index]))[:_WORST]
    accuracy = baseline_accuracy = distance = spread = cosine = lowest_cosine = drop = None
    better = ""
    if scorer is not None:
        right, expected, other = (over_frames(scorer.correct(part, captions)) for part in (pictures, known, unrelated))
        accuracy, baseline_accuracy = float(np.mean(right)), float(np.mean(expected))
        drop = interval(expected - right, rng, np.mean)
        better = too_good(drop, interval(expected - other, rng, np.mean))
    judge, kernel = (scorer, None) if scorer is not None else (network, gaussian_kernel)
    if judge is not None:
        features = [over_frames(judge.features(part)) for part in (pictures, known, unrelated)]
        paired = cosines(features[0], features[1])
        cosine, lowest_cosine = median(paired.tolist()), float(paired.min())
        if len(prompts) > 1:
            distance = kernel_distance(features[0], features[1], kernel)
            spread = kernel_spread(features[2], features[1], rng=rng, kernel=kernel)
    return Fidelity(
        psnr_median=median(noise.tolist()),
        psnr_p10=percentile(noise.tolist(), 10),
        psnr_worst=float(noise.min()),
        ssim_median=median(structure.tolist()),
        ssim_p10=percentile(structure.tolist(), 10),
        prompt_accuracy=accuracy,
        baseline_prompt_accuracy=baseline_accuracy,
        feature_distance=distance,
        seed_distance=spread,
        seed_psnr_median=median(worst_frame_psnr(others, references, frames).tolist()),
        psnr_interval=interval(noise, rng),
        ms_ssim_median=median(over_frames(ms_ssim(pictures, known, ssim_parts)).tolist()),
        cosine_median=cosine,
        cosine_worst=lowest_cosine,
        adherence=_adherence(network, pictures, captions),
        baseline_adherence=_adherence(network, known, captions),
        accuracy_drop=drop,
        too_good=better,
        psnr=tuple(round(float(value), 3) for value in noise),
        images=len(prompts),
        lpips_median=None if perceptual is None else median(over_frames(perceptual(pictures, known)).tolist()),
        **_moving(images, references, frames),
        worst=tuple((prompts[index], int(seeds[index]), float(noise[index])) for index in worst),
    )


def _moving(videos: Images, references: Images, frames: int) -> dict[str, Any]:
    if frames == 1:
        return {}
    made, known = (
        np.asarray(part, dtype=np.float64).reshape(len(part), frames, -1, *part.shape[2:])
        for part in (videos, references)
    )
    flickers = (median(flicker(part).tolist()) for part in (made, known, made - known))
    return {"frames": frames, **dict(zip(("flicker", "baseline_flicker", "added_flicker"), flickers, strict=True))}


def _adherence(network: FeatureNetwork | None, images: Images, prompts: Sequence[str]) -> float | None:
    found = None if network is None else network.adherence(images, prompts)
    return None if found is None else float(np.mean(found))


def psnr(images: Images, references: Images) -> Floats:
    """Return the peak signal-to-noise ratio of each pair in dB, 120 at most (equal images)."""
    difference = images.astype(np.float64) - references
    error = np.mean(difference**2, axis=(1, 2, 3))
    return np.asarray(-10 * np.log10(np.maximum(error, 10 ** (-HIGHEST_PSNR / 10))))


def timed_psnr(pairs: Sequence[tuple[Images, Images]], frames: int) -> float:
    """Return the median over the images of a race's calls, the baseline's first in each pair."""
    return median(np.concatenate([worst_frame_psnr(theirs, ours, frames) for ours, theirs in pairs]).tolist())


def worst_frame_psnr(videos: Images, references: Images, frames: int) -> Floats:
    """Return the PSNR of the worst frame of each pair of videos, whose frames stand one below the other."""
    frames = max(1, frames)
    each = psnr(frames_of(videos, frames), frames_of(references, frames))
    return np.asarray(each.reshape(-1, frames).min(axis=1))


def ssim(images: Images, references: Images) -> Floats:
    """Return the structural similarity of each pair: Gaussian window of 11, sigma 1.5, mean over channels."""
    return ssim_parts(images.astype(np.float64), references.astype(np.float64))[0]


def ssim_parts(first: Floats, second: Floats) -> tuple[Floats, Floats]:
    """Return the structural similarity of each pair, and its part of contrast and structure alone."""
    mean_1, mean_2 = _blur(first), _blur(second)
    variance_1, variance_2 = _blur(first**2) - mean_1**2, _blur(second**2) - mean_2**2
    covariance = _blur(first * second) - mean_1 * mean_2
    c1, c2 = 0.01**2, 0.03**2
    above = (2 * mean_1 * mean_2 + c1) * (2 * covariance + c2)
    below = (mean_1**2 + mean_2**2 + c1) * (variance_1 + variance_2 + c2)
    contrast = (2 * covariance + c2) / (variance_1 + variance_2 + c2)
    return np.asarray(np.mean(above / below, axis=(1, 2, 3))), np.asarray(np.mean(contrast, axis=(1, 2, 3)))


def kernel_distance(first: Floats, second: Floats, kernel: Kernel | None = None) -> float:
    """Return the unbiased squared kernel distance of two feature sets of equal size: KID (cubic polynomial) by default.

    Terms of the same index are left out everywhere, so the estimate is exactly 0 for equal sets and stays unbiased
    though image i of both sets has the same prompt and seed. It may be slightly negative.
    """
    return float(_terms(first, second, kernel).sum() / (len(first) * (len(first) - 1)))


def kernel_spread(first: Floats, second: Floats, *, rng: np.random.Generator, kernel: Kernel | None = None) -> float:
    """Return how far apart two sets of one distribution can come out: the 95th percentile over swapped pairs.

    With the baseline at two seeds this is the yardstick of `kernel_distance` at the same number of images.
    """
    terms = _terms(first, second, kernel)
    signs = rng.choice([-1.0, 1.0], size=(_FLIPS, len(first)))
    values = np.einsum("fi,ij,fj->f", signs, terms, signs, optimize=True) / (len(first) * (len(first) - 1))
    return float(np.percentile(values, 95))


def _terms(first: Floats, second: Floats, kernel: Kernel | None) -> Floats:
    if first.shape != second.shape:
        raise ValueError(f"feature sets of shapes {first.shape} and {second.shape}")
    of = kernel or _kernel
    cross = of(first, second)
    terms = of(first, first) + of(second, second) - cross - cross.T
    np.fill_diagonal(terms, 0.0)
    return terms


def _kernel(first: Floats, second: Floats) -> Floats:
    return np.asarray((first @ second.T / first.shape[1] + 1) ** 3)


def _blur(images: Floats) -> Floats:
    """Blur one axis after the other; images are reflected at their borders, as torchmetrics does."""
    offsets = np.arange(_WINDOW) - _WINDOW // 2
    weights = np.exp(-(offsets**2) / (2 * _SIGMA**2))
    weights /= weights.sum()
    for axis in (1, 2):
        length = images.shape[axis]
        margin = [(_WINDOW // 2, _WINDOW // 2) if other == axis else (0, 0) for other in range(images.ndim)]
        padded = np.pad(images, margin, mode="reflect")
        images = np.sum([np.take(padded, range(k, k + length), axis=axis) * weights[k] for k in range(_WINDOW)], axis=0)
    return images
