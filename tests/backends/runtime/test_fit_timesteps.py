from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, EulerDiscreteScheduler

from diffopt.backends import BackendError
from diffopt.backends.runtime import fit_timesteps, witnesses

Picture = Callable[..., torch.Tensor]


@pytest.mark.parametrize("kind", [DPMSolverMultistepScheduler, EulerDiscreteScheduler])
def test_requests_of_as_many_steps_follow_the_timesteps(pipe: Any, picture: Picture, kind: Any) -> None:
    pipe.scheduler = kind.from_config(pipe.scheduler.config)
    other = picture(pipe, num_inference_steps=3)
    expected = picture(pipe, num_inference_steps=None, timesteps=[999, 700, 300, 50])
    fit_timesteps(pipe, timesteps=[999, 700, 300, 50])
    assert torch.equal(picture(pipe), expected)
    assert pipe.scheduler.timesteps.tolist() == [999, 700, 300, 50]
    assert torch.equal(picture(pipe, num_inference_steps=3), other)
    assert torch.equal(picture(pipe), expected)
    assert [(witness.transform, witness.count) for witness in witnesses(pipe)] == [("fit-timesteps", 2)]


def test_timesteps_that_a_caller_gives_win(pipe: Any, picture: Picture) -> None:
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    expected = picture(pipe, num_inference_steps=None, timesteps=[800, 500, 300, 10])
    fit_timesteps(pipe, timesteps=[999, 700, 300, 50])
    assert torch.equal(picture(pipe, num_inference_steps=None, timesteps=[800, 500, 300, 10]), expected)


@pytest.mark.parametrize("kind", ["sd3", "flux"])
def test_a_flow_keeps_its_shift(tiny_of: Any, latents: Any, kind: str) -> None:
    pipe, call = tiny_of(kind)
    expected = latents(pipe, call, sigmas=[1.0, 0.8, 0.5, 0.1])
    fit_timesteps(pipe, timesteps=[1000, 800, 500, 100])
    assert torch.equal(latents(pipe, call), expected)
    assert [witness.count for witness in witnesses(pipe)] == [1]


@pytest.mark.parametrize(
    ("timesteps", "message"),
    [
        ([], "fall from one"),
        ([5, 5], "fall from one"),
        ([1000, 3], "no timestep 1000"),
        ([9, 3], "DDIMScheduler takes no"),
    ],
)
def test_refuses_timesteps_that_a_scheduler_cannot_take(pipe: Any, timesteps: list[int], message: str) -> None:
    with pytest.raises(BackendError, match=message):
        fit_timesteps(pipe, timesteps=timesteps)
