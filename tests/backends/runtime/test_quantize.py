from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from diffopt.backends import BackendError
from diffopt.backends.runtime import int4, quantize, witnesses
from diffopt.backends.runtime.int4 import GROUP, Int4Weight
from diffopt.backends.runtime.int8 import Int8Weight, replace_layers

Picture = Callable[..., torch.Tensor]


@pytest.mark.parametrize(
    ("scheme", "off", "share"), [("int8-weights", 0.1, 0.3), ("int8-dynamic", 0.1, 0.3), ("int4-weights", 0.3, 0.2)]
)
def test_pictures_stay_close_and_weights_get_small(
    load: Callable[[], Any], picture: Picture, scheme: str, off: float, share: float
) -> None:
    plain, pipe = load(), quantize(load(), "denoiser", scheme=scheme)
    error = (picture(pipe) - picture(plain)).abs().max()
    assert 0 < error < off
    (witness,) = witnesses(pipe)
    kinds = (nn.Linear, nn.Conv2d)
    linear = [
        layer
        for name, layer in plain.unet.named_modules()
        if isinstance(layer, kinds) and layer.weight.numel() >= 1024 and "time_emb" not in name
    ]
    assert (witness.transform, witness.count) == ("quantize", len(linear))
    stored = sum(b.numel() * b.element_size() for b in pipe.unet.buffers())
    assert stored < share * sum(m.weight.numel() * 4 for m in linear)
    assert isinstance(pipe.unet.mid_block.resnets[0].conv1, nn.Conv2d)


@given(rows=st.integers(1, 9), batch=st.integers(1, 5), scale=st.floats(1e-3, 1e3))
def test_a_layer_is_off_by_less_than_a_step_of_its_scale(rows: int, batch: int, scale: float) -> None:
    linear = nn.Linear(128, 8 * rows)
    layer = nn.Sequential(linear)
    inputs = torch.randn(batch, 128) * scale
    with torch.no_grad():
        expected = layer(inputs)
        steps = linear.weight.abs().amax(1) / 127
        replace_layers(layer, "int8-weights")
        error = (layer(inputs) - expected).abs()
    assert (error <= 0.51 * steps * inputs.abs().sum(1, keepdim=True) + 1e-4 * scale).all()


@given(rows=st.integers(1, 9), groups=st.integers(1, 4), dtype=st.sampled_from([torch.float32, torch.bfloat16]))
def test_a_4_bit_weight_is_off_by_half_a_step_of_its_group(rows: int, groups: int, dtype: torch.dtype) -> None:
    weight = torch.randn(rows, groups * GROUP).to(dtype)
    parts = weight.view(rows, groups, GROUP).float()
    steps = (parts.amax(-1, keepdim=True) - parts.amin(-1, keepdim=True)) / 15
    stored = Int4Weight(weight)
    assert stored.values.numel() == weight.numel() / 2
    error = (stored.widened().view(rows, groups, GROUP).float() - parts).abs()
    rounding = 20 * torch.finfo(dtype).eps * parts.abs().amax(-1, keepdim=True)
    assert (error <= 0.51 * steps + rounding).all()


def test_an_exporter_sees_the_same_weight_by_other_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = Int4Weight(torch.randn(48, 3 * GROUP))
    eager = stored.widened()
    monkeypatch.setattr(int4, "being_exported", lambda: True)
    assert torch.equal(stored.widened(), eager)


def test_layers_whose_rows_are_no_whole_groups_stay_in_8_bits() -> None:
    net = nn.Sequential(nn.Linear(64, 64), nn.Linear(48, 64), nn.Conv2d(32, 16, 3), nn.Conv2d(20, 16, 3))
    layers, *_ = replace_layers(net, "int4-weights")
    assert [type(layer.stored) for layer in layers] == [Int4Weight, Int8Weight, Int4Weight, Int8Weight]


@given(batch=st.integers(1, 20), tokens=st.integers(1, 5))
def test_dynamic_layers_multiply_what_they_round(batch: int, tokens: int) -> None:
    layer = nn.Sequential(nn.Linear(64, 32))
    inputs = torch.randn(batch, tokens, 64)
    with torch.no_grad():
        expected = layer(inputs)
        replace_layers(layer, "int8-dynamic")
        out = layer(inputs)
    assert out.shape == expected.shape
    assert torch.allclose(out, expected, atol=0.05)


@pytest.mark.parametrize(
    ("component", "scheme", "message"),
    [("unet", "int3", "no quantization scheme 'int3'"), ("transformer", "int8-weights", "no component 'transformer'")],
)
def test_refuses_what_it_does_not_know(pipe: Any, component: str, scheme: str, message: str) -> None:
    with pytest.raises(BackendError, match=message):
        quantize(pipe, component, scheme=scheme)


def test_refuses_to_quantize_twice(pipe: Any) -> None:
    quantize(pipe, "unet")
    with pytest.raises(BackendError, match="quantize cannot follow quantize"):
        quantize(pipe, "unet", scheme="int8-dynamic")
