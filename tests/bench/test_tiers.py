from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffopt.bench.outcome import Fidelity
from diffopt.bench.tiers import Thresholds

SCORED = Fidelity(
    psnr_median=95, psnr_p10=90, psnr_worst=85, ssim_median=0.999, prompt_accuracy=0.93, baseline_prompt_accuracy=0.93,
    feature_distance=0.0, seed_distance=0.01, images=64, worst=(),
)  # fmt: skip
UNSCORED = dataclasses.replace(
    SCORED, prompt_accuracy=None, baseline_prompt_accuracy=None, feature_distance=None, seed_distance=None
)


@pytest.mark.parametrize(
    ("change", "tier"),
    [
        ({}, "exact"),
        ({"psnr_worst": 79.9}, "near"),
        ({"feature_distance": 0.011}, "changed"),
        ({"seed_psnr_median": 93.0}, "traded"),
        ({"seed_psnr_median": 92.0}, "traded"),
        ({"seed_psnr_median": 90.0}, "exact"),
        ({"psnr_worst": 49.9, "prompt_accuracy": 0.92}, "near"),
        ({"prompt_accuracy": 0.919}, "traded"),
        ({"prompt_accuracy": 0.909}, "changed"),
        ({"prompt_accuracy": 1.0}, "exact"),
        ({"psnr_worst": 20.0, "psnr_p10": 30.0, "psnr_median": 35.0}, "near"),
        ({"psnr_p10": 29.9, "psnr_median": 35.0}, "traded"),
        ({"psnr_p10": 31.0, "psnr_median": 34.9}, "traded"),
        ({"psnr_p10": 12.0, "psnr_median": 20.0, "feature_distance": 0.01}, "traded"),
        ({"psnr_p10": 12.0, "psnr_median": 20.0, "feature_distance": 0.011}, "changed"),
    ],
)
def test_scored_images_get_the_strongest_tier_they_keep(change: dict[str, float], tier: str) -> None:
    assert Thresholds().tier(dataclasses.replace(SCORED, **change)) == tier  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "tier"),
    [
        ({}, "exact"),
        ({"psnr_worst": 25.0, "psnr_p10": 30.0}, "near"),
        ({"psnr_p10": 20.0, "psnr_median": 25.0, "ssim_median": 0.85}, "traded"),
        ({"psnr_p10": 20.0, "psnr_median": 25.0, "ssim_median": 0.84}, "changed"),
        ({"psnr_p10": 19.0, "psnr_median": 25.0}, "changed"),
    ],
)
def test_without_a_scorer_paired_metrics_stand_in(change: dict[str, float], tier: str) -> None:
    assert Thresholds().tier(dataclasses.replace(UNSCORED, **change)) == tier  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "tier"),
    [
        ({"denoiser_error": 0.001, "psnr_p10": 40.0}, "exact"),
        ({"denoiser_error": 0.0011, "psnr_p10": 120.0}, "near"),
        ({"denoiser_error": 0.0}, "exact"),
        ({"denoiser_error": 0.0, "psnr_p10": 29.0}, "traded"),
        ({"denoiser_error": 0.01, "denoiser_dtype": "bfloat16"}, "exact"),
        ({"denoiser_error": 0.011, "denoiser_dtype": "float16"}, "near"),
    ],
)
def test_exact_is_the_error_of_the_denoiser_in_the_dtype_the_user_deploys(change: dict[str, float], tier: str) -> None:
    fidelity = dataclasses.replace(SCORED, **{"denoiser_dtype": "float32", **change})  # type: ignore[arg-type]
    assert Thresholds().tier(fidelity) == tier


def test_thresholds_go_into_a_manifest_and_back() -> None:
    thresholds = Thresholds(near_psnr_median=40.0)
    assert Thresholds.from_json(json.loads(json.dumps(thresholds.to_json()))) == thresholds


def test_an_older_manifest_asks_what_it_asked() -> None:
    old = Thresholds.from_json({"exact_psnr_p10": 50.0, "near_psnr_median": 35.0})
    images = dataclasses.replace(SCORED, psnr_worst=51.0, seed_psnr_median=94.0)
    assert old.tier(images) == "exact"
    assert old.tier(dataclasses.replace(images, denoiser_error=0.03)) == "exact"
    with pytest.raises(TypeError):
        Thresholds.from_json({"exact_error_float32": 1.0, "of_tomorrow": 1.0})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, ""),
        ({"psnr_worst": 49.9}, "not exact: worst image 49.9 dB (at least 80)"),
        ({"psnr_p10": 31.0, "psnr_median": 40.0, "seed_psnr_median": 38.0},
         "not near: median 40.0 dB (at least 41), worst tenth 31.0 dB (at least 38)"),
        ({"denoiser_error": 0.03, "denoiser_dtype": "float32"}, "not exact: denoiser off by 3 % (at most 0.1 %)"),
        ({"prompt_accuracy": 0.914}, "not near: 1.6 points fewer prompts right (at most 1)"),
        ({"psnr_p10": 12.0, "psnr_median": 20.0, "feature_distance": 0.02},
         "not traded: features 0.02 from the baseline's (another seed: 0.01)"),
    ],
)  # fmt: skip
def test_what_is_missing_is_said_in_numbers(change: dict[str, float], reason: str) -> None:
    assert Thresholds().missing(dataclasses.replace(SCORED, **change)) == reason  # type: ignore[arg-type]


@given(
    st.floats(0, 80), st.floats(0, 80), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.booleans(),
)  # fmt: skip
def test_something_is_missing_unless_the_tier_is_exact(
    psnr_median: float, psnr_p10: float, accuracy: float, distance: float, ssim: float, scored: bool
) -> None:
    plain = dataclasses.replace(UNSCORED, psnr_median=psnr_median, psnr_p10=psnr_p10, ssim_median=ssim)
    fidelity = plain
    if scored:
        fidelity = dataclasses.replace(
            plain, prompt_accuracy=accuracy, baseline_prompt_accuracy=0.5, feature_distance=distance, seed_distance=0.5
        )
    assert bool(Thresholds().missing(fidelity)) == (Thresholds().tier(fidelity) != "exact")
