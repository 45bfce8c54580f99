"""What the networks learn: v-prediction along a noise schedule, and the velocity of a straight flow."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

Predict = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]


def v_prediction(predict: Predict, clean: torch.Tensor, alphas: torch.Tensor) -> torch.Tensor:
    """Return the loss of v-prediction (Salimans and Ho, 2022); half of the timesteps come from the noisy end.

    Args:
        predict: from noisy examples and timesteps int64 [n] to v.
        clean: [n, ...].
        alphas: `alphas_cumprod` of the schedule [1000], on the same device.
    """
    noisy, wanted, times = _noised(clean, alphas)
    return (predict(noisy, times).float() - wanted).square().mean()


def taught(predict: Predict, teacher: Predict, clean: torch.Tensor, alphas: torch.Tensor) -> torch.Tensor:
    """Return the distance to what a trained network says about the same noisy examples, drawn as in `v_prediction`.

    Its answer is the mean of what the data would say one example at a time, so far fewer steps do.
    """
    import torch

    noisy, _, times = _noised(clean, alphas)
    with torch.no_grad():
        wanted = teacher(noisy, times).float()
    return (predict(noisy, times).float() - wanted).square().mean()


def _noised(clean: torch.Tensor, alphas: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return noisy examples, their v, and their timesteps."""
    import torch

    count, device = len(clean), clean.device
    anywhere = torch.randint(len(alphas), (count,), device=device)
    noisy_end = torch.randint(7 * len(alphas) // 10, len(alphas), (count,), device=device)
    times = torch.where(torch.rand(count, device=device) < 0.5, anywhere, noisy_end)
    shape = (count,) + (1,) * (clean.ndim - 1)
    signal, spread = alphas[times].sqrt().view(shape), (1 - alphas[times]).sqrt().view(shape)
    noise = torch.randn_like(clean)
    return signal * clean + spread * noise, signal * noise - spread * clean, times


def flow_velocity(predict: Predict, clean: torch.Tensor, shift: float) -> torch.Tensor:
    """Return the loss of rectified flow (Liu et al., 2022) with times drawn as the shifted schedule spaces them.

    Args:
        predict: from noisy examples and timesteps float32 [n] in [0, 1000] to noise minus clean.
        clean: [n, ...].
        shift: of `FlowMatchEulerDiscreteScheduler`.
    """
    import torch

    count, device = len(clean), clean.device
    even = torch.rand(count, device=device)
    sigmas = shift * even / (1 + (shift - 1) * even)
    mix = sigmas.view((count,) + (1,) * (clean.ndim - 1))
    noise = torch.randn_like(clean)
    velocity = predict((1 - mix) * clean + mix * noise, 1000 * sigmas)
    return (velocity.float() - (noise - clean)).square().mean()
