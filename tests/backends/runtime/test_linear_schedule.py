"""Schedulers tell their recurrences themselves."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from diffopt.backends.runtime.linear_schedule import Recurrence, recurrence

BASE = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
LINEAR: tuple[tuple[str, dict[str, Any], int], ...] = (
    ("EulerDiscreteScheduler", {"timestep_spacing": "leading", "steps_offset": 1}, 1),
    ("DDIMScheduler", {"clip_sample": False}, 1),
    ("DPMSolverMultistepScheduler", {}, 2),
    ("DPMSolverMultistepScheduler", {"solver_order": 3}, 3),
    ("UniPCMultistepScheduler", {}, 3),
    ("DEISMultistepScheduler", {}, 2),
)


def scheduler(name: str, options: dict[str, Any]) -> Any:
    import diffusers

    made = getattr(diffusers, name)(**BASE, **options)
    made.set_timesteps(12)
    return made


@pytest.mark.parametrize(("name", "options", "depth"), LINEAR)
def test_a_deterministic_scheduler_is_a_recurrence(name: str, options: dict[str, Any], depth: int) -> None:
    found = recurrence(scheduler(name, options))
    assert isinstance(found, Recurrence)
    assert found.depth == depth
    asked = scheduler(name, options)
    generator = torch.Generator().manual_seed(3)
    latents = [torch.randn(1, 4, 8, 8, generator=generator) * asked.init_noise_sigma]
    outputs: list[torch.Tensor] = []
    for step, time in enumerate(asked.timesteps):
        given = asked.scale_model_input(latents[-1], time)
        assert torch.allclose(given, latents[-1] * found.inputs[step], rtol=1e-5)
        outputs.append(torch.randn(1, 4, 8, 8, generator=generator))
        latents.append(asked.step(outputs[-1], time, latents[-1], return_dict=False)[0])
        foreseen = sum(
            found.samples[step][k] * latents[step - k] + found.outputs[step][k] * outputs[step - k]
            for k in range(min(step + 1, depth))
        )
        assert isinstance(foreseen, torch.Tensor)
        assert (foreseen - latents[-1]).norm() < 1e-5 * latents[-1].norm()


@pytest.mark.parametrize("name", ["EulerAncestralDiscreteScheduler", "LMSDiscreteScheduler"])
def test_a_scheduler_that_draws_noise_or_looks_far_back_is_none(name: str) -> None:
    assert "no linear recurrence" in str(recurrence(scheduler(name, {})))


def test_asking_leaves_the_scheduler_as_it_is() -> None:
    asked = scheduler("DPMSolverMultistepScheduler", {})
    before = {key: repr(value) for key, value in asked.__dict__.items()}
    recurrence(asked)
    assert before == {key: repr(value) for key, value in asked.__dict__.items()}
