"""Guidance and the scheduler's step in one kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from diffopt.backends.kernels.guided_step import guided_step, reference


def test_computes_what_float64_does_at_any_shape(
    draws: Iterator[Any], close: Callable[..., None], double: Callable[..., list[Any]]
) -> None:
    for draw in draws:
        batch, shape = draw.upto(2), (draw.upto(4), draw.upto(5), draw.upto(9))
        sample = draw.tensor(batch, *shape)
        history = draw.tensor(batch, *shape, dtype=torch.float32) if draw.maybe() else None
        prediction = draw.tensor(batch * draw.upto(2), *shape)
        arguments = prediction, sample, history, draw.tensor(6, dtype=torch.float32)
        following, clean = guided_step(*arguments)
        assert (following.dtype, clean.dtype) == (sample.dtype, torch.float32)
        wanted = reference(*double(*arguments))
        close(following, wanted[0])
        close(clean, wanted[1])


def test_makes_the_step_of_ddim() -> None:
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(clip_sample=False)
    scheduler.set_timesteps(10)
    step, generator = scheduler.timesteps[4], torch.Generator().manual_seed(0)
    prediction, sample = (torch.randn(n, 4, 8, 8, generator=generator) for n in (2, 1))
    alpha, before = (scheduler.alphas_cumprod[t] for t in (step, step - 100))
    # x' = sqrt(a') x0 + sqrt(1 - a') e, and e = (x - sqrt(a) x0) / sqrt(1 - a)
    ratio = ((1 - before) / (1 - alpha)).sqrt()
    coefficients = torch.stack([
        torch.tensor(5.0), alpha.rsqrt(), -((1 - alpha) / alpha).sqrt(), ratio,
        before.sqrt() - ratio * alpha.sqrt(), torch.tensor(0.0),
    ])  # fmt: skip
    unconditional, conditional = prediction.chunk(2)
    wanted = scheduler.step(unconditional + 5 * (conditional - unconditional), step, sample).prev_sample
    assert torch.allclose(guided_step(prediction, sample, None, coefficients)[0], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 7.5])
def test_guidance_of_equal_halves_changes_nothing(scale: float) -> None:
    half = torch.randn(1, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    coefficients = torch.tensor([scale, 0.5, -0.5, 0.9, 0.1, 0.0])
    apart, guided = (guided_step(p, half, None, coefficients)[0] for p in (half, torch.cat([half, half])))
    assert torch.allclose(apart, guided, rtol=1e-6, atol=1e-7)
