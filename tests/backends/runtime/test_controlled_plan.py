"""A plan of steps beside a ControlNet: what it adds to the UNet is halved, reused and passed on with the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from diffopt.backends.runtime import follow_step_plan, witnesses
from diffopt.backends.runtime.denoiser_call import read_call
from diffopt.backends.runtime.feature_cache import FullPass, ShallowPass


@pytest.fixture
def controlled(pipe: Any) -> Any:
    """The tiny pipeline with a ControlNet that says something, and a picture that it is given in every call."""
    from diffusers import ControlNetModel, StableDiffusionControlNetPipeline

    torch.manual_seed(0)
    control = ControlNetModel.from_unet(
        pipe.unet, conditioning_embedding_out_channels=(16,) * pipe.vae_scale_factor.bit_length()
    ).eval()
    for layer in (*control.controlnet_down_blocks, control.controlnet_mid_block):
        torch.nn.init.normal_(layer.weight, std=0.3)
    made = StableDiffusionControlNetPipeline(**pipe.components, controlnet=control, requires_safety_checker=False)
    made.set_progress_bar_config(disable=True)
    return made


def steered(pipe: Any, picture: Callable[..., torch.Tensor], **arguments: Any) -> torch.Tensor:
    height, width = (side * pipe.vae_scale_factor for side in pipe.unet.config.sample_size)
    control = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(5))
    return picture(pipe, image=control, height=height, width=width, **arguments)


@pytest.mark.parametrize("branch", [0, 3])
def test_a_shallow_pass_on_fresh_features_is_the_full_pass_with_what_a_controlnet_adds(
    controlled: Any, branch: int
) -> None:
    seen: dict[str, Any] = {}
    unet, original = controlled.unet, controlled.unet.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        seen["call"] = read_call(original, args, kwargs)
        return original(*args, **kwargs)

    unet.forward = forward
    steered(controlled, lambda pipe, **given: pipe("a red circle", num_inference_steps=1, **given))
    shape, tensors = seen["call"]
    unet.forward = original
    full, shallow = FullPass(unet, branch), ShallowPass(unet, branch)
    full.shape = shallow.shape = shape
    with torch.no_grad():
        out, deep = full(*tensors)
        again = shallow(*tensors, deep)[0]
        without = shallow(*(t * 0 if "residual" in n else t for n, t in zip(shape.names, tensors, strict=True)), deep)[
            0
        ]
    assert torch.allclose(again, out, atol=1e-4)
    assert not torch.allclose(without, out, atol=1e-3)


def test_unguided_steps_are_the_conditional_half_alone(controlled: Any, picture: Callable[..., torch.Tensor]) -> None:
    conditional = steered(controlled, picture, guidance_scale=1.0)
    guided = steered(controlled, picture)
    follow_step_plan(controlled, steps=4, guided=())
    assert torch.allclose(steered(controlled, picture), conditional, atol=1e-5)
    assert not torch.allclose(guided, conditional, atol=1e-3)


def test_cached_steps_beside_a_controlnet_are_counted(controlled: Any, picture: Callable[..., torch.Tensor]) -> None:
    follow_step_plan(controlled, steps=4, full=range(0, 4, 2), guided=range(2))
    assert torch.isfinite(steered(controlled, picture)).all()
    assert [(w.transform, w.count) for w in witnesses(controlled)] == [("cache-features", 2), ("guidance-window", 2)]
