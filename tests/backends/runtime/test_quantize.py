from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from diffopt.backends import BackendError
from diffopt.backends.runtime import quantize, witnesses
from diffopt.backends.runtime.int8 import replace_layers

Picture = Callable[..., torch.Tensor]


@pytest.mark.parametrize("scheme", ["int8-weights", "int8-dynamic"])
def test_pictures_stay_close_and_weights_get_small(load: Callable[[], Any], picture: Picture, scheme: str) -> None:
    plain, pipe = load(), quantize(load(), "denoiser", scheme=scheme)
    error = (picture(pipe) - picture(plain)).abs().max()
    assert 0 < error < 0.1
    (witness,) = witnesses(pipe)
    kinds = (nn.Linear, nn.Conv2d)
    linear = [
        layer
        for name, layer in plain.unet.named_modules()
        if isinstance(layer, kinds) and layer.weight.numel() >= 1024 and "time_emb" not in name
    ]
    assert (witness.transform, witness.count) == ("quantize", len(linear))
    stored = sum(b.numel() * b.element_size() for b in pipe.unet.buffers())
    assert stored < 0.3 * sum(m.weight.numel() * 4 for m in linear)
    assert isinstance(pipe.unet.mid_block.resnets[0].conv1, nn.Conv2d)


@given(rows=st.integers(1, 9), batch=st.integers(1, 5), scale=st.floats(1e-3, 1e3))
def test_a_layer_is_off_by_less_than_a_step_of_its_scale(rows: int, batch: int, scale: float) -> None:
    linear = nn.Linear(128, 8 * rows)
    layer = nn.Sequential(linear)
    inputs = torch.randn(batch, 128) * scale
    with torch.no_grad():
        expected = layer(inputs)
        steps = linear.weight.abs().amax(1) / 127
        replace_layers(layer, dynamic=False)
        error = (layer(inputs) - expected).abs()
    assert (error <= 0.51 * steps * inputs.abs().sum(1, keepdim=True) + 1e-4 * scale).all()


@given(batch=st.integers(1, 20), tokens=st.integers(1, 5))
def test_dynamic_layers_multiply_what_they_round(batch: int, tokens: int) -> None:
    layer = nn.Sequential(nn.Linear(64, 32))
    inputs = torch.randn(batch, tokens, 64)
    with torch.no_grad():
        expected = layer(inputs)
        replace_layers(layer, dynamic=True)
        out = layer(inputs)
    assert out.shape == expected.shape
    assert torch.allclose(out, expected, atol=0.05)


@pytest.mark.parametrize(
    ("component", "scheme", "message"),
    [("unet", "int4", "no quantization scheme 'int4'"), ("transformer", "int8-weights", "no component 'transformer'")],
)
def test_refuses_what_it_does_not_know(pipe: Any, component: str, scheme: str, message: str) -> None:
    with pytest.raises(BackendError, match=message):
        quantize(pipe, component, scheme=scheme)


def test_refuses_to_quantize_twice(pipe: Any) -> None:
    quantize(pipe, "unet")
    with pytest.raises(BackendError, match="quantize cannot follow quantize"):
        quantize(pipe, "unet", scheme="int8-dynamic")
