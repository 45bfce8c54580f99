from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from diffopt.bench.closeness import interval, ms_ssim, too_good
from diffopt.bench.fidelity import HIGHEST_PSNR, compare, kernel_distance, kernel_spread, psnr, ssim, ssim_parts
from diffopt.bench.resident import Images


def pictures(count: int, seed: int = 0, size: int = 32) -> Images:
    return np.random.default_rng(seed).random((count, size, size, 3), dtype=np.float32)


def near(images: Images, noise: float) -> Images:
    shift = np.random.default_rng(9).normal(0, noise, images.shape).astype(np.float32)
    return np.asarray(np.clip(images + shift, 0, 1), dtype=np.float32)


class MeanColour:
    """Right where the image is bright; its features are the mean colours."""

    def correct(self, images: Images, prompts: Sequence[str]) -> npt.NDArray[np.bool_]:
        assert len(images) == len(prompts)
        return np.asarray(images.mean(axis=(1, 2, 3)) > 0.5)

    def features(self, images: Images) -> npt.NDArray[np.float32]:
        return np.asarray(images.mean(axis=(1, 2)), dtype=np.float32)


@pytest.mark.parametrize("noise", [0.3, 0.05, 0.001])
def test_psnr_and_ssim_agree_with_torchmetrics(noise: float) -> None:
    first = pictures(3)
    second = near(first, noise)
    ours, theirs = (torch.from_numpy(part).permute(0, 3, 1, 2) for part in (second, first))
    expected_psnr = peak_signal_noise_ratio(ours, theirs, data_range=1.0, reduction="none", dim=(1, 2, 3))
    expected_ssim = structural_similarity_index_measure(ours, theirs, data_range=1.0, reduction="none")
    assert psnr(second, first) == pytest.approx(expected_psnr.numpy(), abs=1e-3)
    assert isinstance(expected_ssim, torch.Tensor)
    assert ssim(second, first) == pytest.approx(expected_ssim.numpy(), abs=1e-3)


def test_equal_images_are_at_the_highest_psnr_and_stay_finite() -> None:
    images = pictures(2)
    assert psnr(images, images).tolist() == [HIGHEST_PSNR] * 2
    assert ssim(images, images) == pytest.approx([1.0, 1.0])


def test_ssim_takes_images_smaller_than_its_window() -> None:
    images = pictures(1, size=8)
    assert ssim(images, images) == pytest.approx([1.0])


def test_the_kernel_distance_of_equal_sets_is_zero_and_of_shifted_sets_grows() -> None:
    features = np.random.default_rng(0).normal(size=(40, 8))
    distances = [kernel_distance(features + shift, features) for shift in (0.0, 0.5, 1.0)]
    assert distances[0] == pytest.approx(0, abs=1e-12)
    assert distances[0] < distances[1] < distances[2]


def test_the_kernel_distance_is_unbiased() -> None:
    rng = np.random.default_rng(0)
    found = [kernel_distance(rng.normal(size=(20, 4)), rng.normal(size=(20, 4))) for _ in range(400)]
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(len(found))


def test_the_spread_is_what_one_distribution_rarely_exceeds() -> None:
    rng = np.random.default_rng(0)
    exceeded = 0
    for _ in range(100):
        first, second, third = (rng.normal(size=(30, 4)) for _ in range(3))
        exceeded += kernel_distance(third, second) > kernel_spread(first, second, rng=rng)
    assert exceeded <= 15


def test_the_comparison_names_the_worst_images_and_scores_both_sides() -> None:
    references, others = pictures(20), pictures(20, seed=1)
    images = near(references, 0.01)
    images[7] = 1.0
    prompts, seeds = [f"prompt {index}" for index in range(20)], list(range(100, 120))
    found = compare(
        images, references, others, prompts=prompts, seeds=seeds, scorer=MeanColour(), rng=np.random.default_rng(0)
    )
    assert found.worst[0][:2] == ("prompt 7", 107)
    assert found.psnr_worst == found.worst[0][2] < found.psnr_p10 < found.psnr_median
    assert found.images == 20
    assert found.prompt_accuracy is not None
    assert found.baseline_prompt_accuracy == pytest.approx(MeanColour().correct(references, prompts).mean())
    assert found.feature_distance is not None
    assert found.seed_distance is not None
    assert found.seed_psnr_median == pytest.approx(float(np.median(psnr(others, references))))


def test_without_a_scorer_there_is_no_accuracy_and_no_distance() -> None:
    images = pictures(2)
    found = compare(images, images, images, prompts=["a", "b"], seeds=[1, 2], scorer=None, rng=np.random.default_rng(0))
    assert (found.prompt_accuracy, found.feature_distance, found.seed_distance) == (None, None, None)


def test_similarity_over_scales_agrees_with_torchmetrics() -> None:
    first = pictures(2, size=192)
    second = near(first, 0.2)
    ours, theirs = (torch.from_numpy(part).permute(0, 3, 1, 2) for part in (second, first))
    expected = multiscale_structural_similarity_index_measure(ours, theirs, data_range=1.0, reduction="none")
    assert isinstance(expected, torch.Tensor)
    assert ms_ssim(second, first, ssim_parts) == pytest.approx(expected.numpy(), abs=2e-3)


def test_similarity_over_scales_takes_small_images() -> None:
    assert ms_ssim(pictures(1, size=8), pictures(1, size=8), ssim_parts) == pytest.approx([1.0])


def test_the_interval_of_a_median_over_prompts_holds_it_and_narrows_with_their_number() -> None:
    rng = np.random.default_rng(0)
    few, many = (interval(np.linspace(30, 40, count), rng) for count in (8, 128))
    assert few[0] < many[0] < 35 < many[1] < few[1]


@pytest.mark.parametrize(
    ("drop", "seeds", "flagged"),
    [
        ((-0.20, -0.10), (-0.05, 0.05), True),
        ((-0.10, -0.02), (-0.05, 0.05), False),
        ((-0.10, 0.02), (-0.05, 0.05), False),
        ((0.10, 0.20), (-0.05, 0.05), False),
        (None, None, False),
    ],
)
def test_an_improvement_beyond_the_seeds_is_flagged(
    drop: tuple[float, float] | None, seeds: tuple[float, float] | None, flagged: bool
) -> None:
    assert bool(too_good(drop, seeds)) == flagged
