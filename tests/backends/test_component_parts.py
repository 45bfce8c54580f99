from __future__ import annotations

from typing import Any

import pytest
import torch

from diffopt.backends.base import Axis, BackendError
from diffopt.backends.component_parts import Workload, component_parts

BATCH = Axis("batch", 1, 1, 4)


def ranges(part: Any) -> list[dict[int, tuple[str, int, int, int]]]:
    return [{p: (a.name, a.least, a.usual, a.most) for p, a in axes.items()} for axes in part.axes()]


def test_every_component_and_both_halves_of_the_vae_are_parts(pipe: Any) -> None:
    parts = component_parts(pipe, Workload(BATCH))
    assert [part.name for part in parts] == ["text_encoder", "unet", "vae_decoder", "vae_encoder"]
    for part in parts:
        with torch.no_grad():
            assert all(isinstance(value, torch.Tensor) for value in part.module(*part.inputs))


def test_dimensions_are_known_by_what_they_change_with(pipe: Any) -> None:
    workload = Workload(BATCH, height=Axis("height", 16, 24, 40), width=Axis("width", 16, 16, 16))
    text, unet, decoder, encoder = component_parts(pipe, workload)
    assert ranges(text) == [{0: ("batch", 1, 1, 4)}]
    # guidance asks the denoiser for two pictures each
    assert ranges(unet)[0] == {0: ("batch", 2, 2, 8), 2: ("height", 8, 12, 20)}
    assert ranges(decoder) == [{0: ("batch", 1, 1, 4), 2: ("height", 8, 12, 20)}]
    assert ranges(encoder) == [{0: ("batch", 1, 1, 4), 2: ("height", 16, 24, 40)}]


def test_the_length_of_a_prompt_may_vary_where_it_is_asked_for(pipe: Any) -> None:
    text, unet, *_ = component_parts(pipe, Workload(BATCH, sequence=Axis("sequence", 5, 8, 11)))
    assert ranges(text) == [{0: ("batch", 1, 1, 4), 1: ("sequence", 5, 8, 11)}]
    assert ("sequence", 5, 8, 11) in ranges(unet)[unet.input_names.index("encoder_hidden_states")].values()
    assert pipe.tokenizer.model_max_length == 11


def test_names_that_stand_for_several_components(pipe: Any) -> None:
    parts = component_parts(pipe, Workload(BATCH), ["denoiser", "vae"])
    assert [part.name for part in parts] == ["unet", "vae_decoder", "vae_encoder"]


def test_a_component_that_is_not_there_is_named(pipe: Any) -> None:
    with pytest.raises(BackendError, match="no component 'controlnet'"):
        component_parts(pipe, Workload(BATCH), ["controlnet"])


def test_a_longer_prompt_than_the_tokenizer_takes_is_refused(pipe: Any) -> None:
    with pytest.raises(BackendError, match="longer than the tokenizer's 11"):
        component_parts(pipe, Workload(BATCH, sequence=Axis("sequence", 5, 8, 77)))


def test_tensors_inside_arguments_are_inputs_of_their_own(pipe: Any) -> None:
    from diffusers import ControlNetModel, StableDiffusionControlNetPipeline

    net = ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=(8, 16))
    with torch.no_grad():
        for parameter in net.parameters():  # what a fresh ControlNet gives out is zero
            parameter.add_(0.01)
    guided = StableDiffusionControlNetPipeline(**pipe.components, controlnet=net, requires_safety_checker=False)
    guided.set_progress_bar_config(disable=True)
    size = {"height": Axis("height", 24, 24, 24), "width": Axis("width", 16, 16, 16)}
    unet, control = component_parts(guided, Workload(BATCH, **size), ["unet", "controlnet"])
    assert unet.input_names[:3] == ("sample", "timestep", "encoder_hidden_states")
    assert "down_block_additional_residuals_0" in unet.input_names
    assert ranges(control)[control.input_names.index("controlnet_cond")][0] == ("batch", 2, 2, 8)
    with torch.no_grad():
        assert len(control.module(*control.inputs)) == len(unet.inputs) - 3


def test_calls_are_recorded_for_static_quantization(pipe: Any) -> None:
    from diffopt.backends.component_parts import with_calls

    parts = {
        part.name: part for part in with_calls(pipe, component_parts(pipe, Workload(BATCH)), ["a", "red"], steps=2)
    }
    assert [len(parts[name].calls) for name in ("text_encoder", "unet", "vae_decoder", "vae_encoder")] == [4, 4, 2, 1]
    assert all(
        a.shape == b.shape for call in parts["unet"].calls for a, b in zip(call, parts["unet"].inputs, strict=True)
    )
    assert "forward" not in pipe.unet.__dict__
