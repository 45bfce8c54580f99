"""A UNet starts from a larger one: what has the same width is the same, and its steps are as noisy as the other's."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import UNet2DConditionModel

from diffopt.bench.models.learning.inherit import inherit, same_noise


def _unet(deepest: int, *, linear: bool) -> Any:
    torch.manual_seed(deepest)
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16, deepest),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=8,
        attention_head_dim=2,
        norm_num_groups=4,
        use_linear_projection=linear,
    ).eval()


def _said(unet: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    latents, states = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 5, 8, generator=generator)
    with torch.no_grad():
        said: torch.Tensor = unet(latents, torch.tensor([3, 800]), states).sample
    return said


def test_a_network_as_wide_as_its_teacher_says_the_same() -> None:
    teacher, student = _unet(24, linear=False), _unet(24, linear=True)
    inherit(student, teacher)
    assert torch.allclose(_said(student), _said(teacher), atol=1e-5)


def test_a_narrower_network_is_nearer_to_its_teacher_than_a_fresh_one() -> None:
    teacher, fresh, student = _unet(24, linear=False), _unet(16, linear=True), _unet(16, linear=True)
    inherit(student, teacher)
    distances = [float((_said(unet) - _said(teacher)).norm()) for unet in (student, fresh)]
    assert distances[0] < 0.7 * distances[1]


def test_a_step_is_matched_with_the_step_of_as_much_noise() -> None:
    one, other = torch.linspace(0.99, 0.0, 50), torch.linspace(0.995, 0.1, 80)
    assert torch.allclose(same_noise(one, one), torch.arange(50.0), atol=1e-3)
    matched = same_noise(one, other)
    low, high = other[matched.floor().long()], other[matched.ceil().long()]
    inside = (one >= 0.1) & (one <= 0.99)
    assert ((high <= one + 1e-4) & (one <= low + 1e-4))[inside].all()
    assert matched[-1] == 79
