"""Captured steps give the images that ordinary ones give, and step aside where they cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from diffopt.backends.runtime import (
    capture_step,
    follow_step_plan,
    freeze_prompt,
    quantize_fp8,
    seeded_pipeline,
    witnesses,
)
from diffopt.bench.models.fullsize import write_model

pytestmark = pytest.mark.slow
PROMPTS = (
    "a red cat",
    "a blue dog on a hill",
    "a yellow car, seen from far above, with a text of more than 64 bytes in all",
)


def pipeline(name: str, folder: Path) -> Any:
    import diffusers

    model = write_model(name, folder, small=True)
    pipe = seeded_pipeline(getattr(diffusers, model.pipeline_class), str(folder), device="cpu", dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def image(pipe: Any, prompt: str, seed: int, **call: Any) -> Any:
    size = (
        {"height": 64, "width": 64} if type(pipe).__name__ != "PixArtSigmaPipeline" else {"height": 256, "width": 256}
    )
    given = {"num_inference_steps": 4, "output_type": "latent", **size, **call}
    return pipe(prompt, generator=torch.Generator().manual_seed(seed), **given).images


def captured(pipe: Any) -> str:
    return next(witness.detail for witness in witnesses(pipe) if witness.transform == "capture_step")


@pytest.mark.parametrize("name", ["sdxl", "pixart", "flux"])
def test_images_are_the_same_with_every_kind_of_step(name: str, tmp_path: Path) -> None:
    component = "unet" if name == "sdxl" else "transformer"

    def planned(pipe: Any) -> Any:
        blocks: dict[str, Any] = {} if name == "sdxl" else {"blocks": (1, 0), "order": 1}
        guided: dict[str, Any] = {} if name == "flux" else {"guided": range(3)}
        return follow_step_plan(pipe, component=component, steps=4, full=range(0, 4, 2), **blocks, **guided)

    reference, pipe = planned(pipeline(name, tmp_path)), pipeline(name, tmp_path)
    if name != "flux":
        freeze_prompt(pipe, component)
    capture_step(planned(pipe), component, mode="eager")
    for seed, prompt in enumerate(PROMPTS):
        one, other = image(reference, prompt, seed), image(pipe, prompt, seed)
        assert (one - other).norm() < 1e-4 * one.norm()
    assert "2 of 3 requests, 8 captured steps" in captured(pipe)


def test_a_call_that_watches_steps_runs_as_it_did(tmp_path: Path) -> None:
    pipe = capture_step(pipeline("sdxl", tmp_path), "unet", mode="eager")
    seen: list[int] = []

    def watch(pipe: Any, step: int, time: Any, kept: dict[str, Any]) -> dict[str, Any]:
        seen.append(step)
        return {}

    for _ in range(2):
        image(pipe, PROMPTS[0], 0, callback_on_step_end=watch)
    assert seen == [0, 1, 2, 3] * 2
    assert "0 of 2 requests" in captured(pipe)


def test_a_scheduler_that_is_no_recurrence_runs_as_it_did(tmp_path: Path) -> None:
    from diffusers import EulerAncestralDiscreteScheduler

    pipe = pipeline("sdxl", tmp_path)
    pipe.scheduler = EulerAncestralDiscreteScheduler.from_config(pipe.scheduler.config)
    capture_step(pipe, "unet", mode="eager")
    one, other = image(pipe, PROMPTS[0], 1), image(pipe, PROMPTS[0], 1)
    assert torch.equal(one, other)
    assert "0 of 2 requests" in captured(pipe)


def test_another_scale_of_guidance_goes_into_the_same_loop(tmp_path: Path) -> None:
    reference, pipe = pipeline("sdxl", tmp_path), capture_step(pipeline("sdxl", tmp_path), "unet", mode="eager")
    for scale in (3.0, 7.0):
        one, other = (image(each, PROMPTS[1], 2, guidance_scale=scale) for each in (reference, pipe))
        assert (one - other).norm() < 1e-4 * one.norm()
    assert "1 of 2 requests" in captured(pipe)


def test_8_bit_products_stay_near(tmp_path: Path) -> None:
    reference, pipe = pipeline("flux", tmp_path), quantize_fp8(pipeline("flux", tmp_path), "transformer")
    one, other = image(reference, PROMPTS[0], 0), image(pipe, PROMPTS[0], 0)
    assert 0 < (one - other).norm() < 0.2 * one.norm()
