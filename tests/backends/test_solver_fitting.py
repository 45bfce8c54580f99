"""Solvers fitted to a trajectory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
    LMSDiscreteScheduler,
)

from diffopt.backends import BackendError
from diffopt.backends.solver_fitting import fit_solver, fit_weights, trace_trajectory


class Decay:
    """A pipeline of two pictures whose velocity is the latent itself, so that Euler's steps miss the end."""

    def __init__(self) -> None:
        self.scheduler: Any = FlowMatchEulerDiscreteScheduler()

    def __call__(self) -> torch.Tensor:
        self.scheduler.set_timesteps(20)
        sample = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
        for step in self.scheduler.timesteps:
            sample = self.scheduler.step(sample, step, sample, return_dict=False)[0]
        return sample


def test_two_fitted_steps_land_where_twenty_do() -> None:
    pipe = Decay()
    traced = trace_trajectory(pipe, pipe)
    assert torch.equal(traced.latents[-1], pipe())
    found = fit_solver(pipe, pipe, traced, 2)
    assert len(found.timesteps) == 2
    assert [len(row) for row in found.weights] == [2, 4]
    assert found.error < 1e-5
    assert torch.equal(traced.latents[-1], pipe()), "the pipeline is as it was"


def test_a_later_step_mends_what_an_earlier_one_missed() -> None:
    class Bent(Decay):
        def __call__(self) -> torch.Tensor:
            self.scheduler.set_timesteps(20)
            sample = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
            for step in self.scheduler.timesteps:
                sample = self.scheduler.step(sample.tanh() * step / 500, step, sample, return_dict=False)[0]
            return sample

    pipe = Bent()
    traced = trace_trajectory(pipe, pipe)
    errors = [fit_weights(pipe, pipe, traced, places, reach).error for places, reach in (((0, 10), 1), ((0, 10), 2))]
    assert errors[1] < errors[0]
    assert fit_solver(pipe, pipe, traced, 4).error < errors[1]


def test_a_trajectory_whose_latents_grow_with_the_noise_is_fitted_in_the_denoisers_scale() -> None:
    class Noisy(Decay):
        """A pipeline that predicts noise from what its scheduler scales for it, as Stable Diffusion XL."""

        def __init__(self, scheduler: Any) -> None:
            self.scheduler = scheduler

        def __call__(self) -> torch.Tensor:
            self.scheduler.set_timesteps(20)
            noise = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
            sample: torch.Tensor = noise * self.scheduler.init_noise_sigma
            for step in self.scheduler.timesteps:
                given = self.scheduler.scale_model_input(sample, step)
                sample = self.scheduler.step(given.tanh() * 0.9, step, sample, return_dict=False)[0]
            return sample

    euler = Noisy(EulerDiscreteScheduler(timestep_spacing="leading", steps_offset=1))
    student = Noisy(DPMSolverMultistepScheduler(timestep_spacing="leading", steps_offset=1))
    traced = trace_trajectory(euler, euler)
    assert float(traced.latents[0].std()) == pytest.approx(1, abs=0.1)
    assert torch.equal(traced.latents[-1], euler())
    plain = (student() - euler()).norm() / euler().norm()
    assert fit_solver(student, student, traced, 4).error < 0.1 * plain


def test_says_what_cannot_be_fitted() -> None:
    pipe = Decay()
    with pytest.raises(BackendError, match="20 steps, and 20 are to be fewer"):
        fit_solver(pipe, pipe, trace_trajectory(pipe, pipe), 20)
    for scheduler, why in (
        (HeunDiscreteScheduler(), "they ask the denoiser twice"),
        (EulerAncestralDiscreteScheduler(), "each draws noise"),
        (LMSDiscreteScheduler(), "a scale of their own"),
    ):
        pipe.scheduler = scheduler
        with pytest.raises(BackendError, match=why):
            trace_trajectory(pipe, pipe)
    pipe.scheduler = DDIMScheduler(clip_sample=False)
    assert len(trace_trajectory(pipe, pipe).latents) == 21
