"""A component in 16 bits, and the way back where numbers overflow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from diffopt.backends import BackendError
from diffopt.backends.runtime import half_precision, witnesses

Picture = Callable[..., torch.Tensor]


@pytest.mark.parametrize("component", ["unet", "vae"])
def test_pictures_stay_close(load: Callable[[], Any], picture: Picture, component: str) -> None:
    pipe = half_precision(load(), component)
    picture_16, plain = picture(pipe), picture(load())
    assert 0 < (picture_16 - plain).abs().max() < 0.1
    assert picture_16.dtype == plain.dtype
    assert {p.dtype for p in getattr(pipe, component).parameters()} == {torch.bfloat16}
    (witness,) = witnesses(pipe)
    assert (witness.transform, witness.count) == ("half_precision", 4 if component == "unet" else 1)


def test_an_overflow_is_computed_again_and_stays_in_float32(load: Callable[[], Any], picture: Picture) -> None:
    pipe = load()
    with torch.no_grad():
        pipe.unet.conv_in.weight.mul_(1e5)
    half_precision(pipe, "unet", dtype="float16")
    images = picture(pipe, num_inference_steps=2)
    assert images.isfinite().all()
    assert pipe.unet.dtype == torch.float32
    (witness,) = witnesses(pipe)
    assert witness.detail.endswith("1 overflows")


def test_a_buffer_that_is_a_view_leaves_no_base_of_the_old_dtype_behind(tiny_of: Any) -> None:
    pipe, _ = tiny_of("pixart")
    assert any(buffer._is_view() for buffer in pipe.transformer.buffers()), "what torch.compile stumbled over"
    half_precision(pipe, "transformer")
    for buffer in pipe.transformer.buffers():
        assert {buffer.dtype, (buffer if buffer._base is None else buffer._base).dtype} == {torch.bfloat16}


def test_refuses_weights_that_do_not_fit(pipe: Any) -> None:
    with torch.no_grad():
        pipe.unet.conv_in.weight.mul_(1e7)
    with pytest.raises(BackendError, match=r"conv_in.weight do not fit into float16 \(bfloat16 holds them\)"):
        half_precision(pipe, "unet", dtype="float16")


def test_refuses_what_it_cannot_cast(pipe: Any) -> None:
    with pytest.raises(BackendError, match="no 16-bit numbers 'float8'"):
        half_precision(pipe, "unet", dtype="float8")
    half_precision(pipe, "unet")
    with pytest.raises(BackendError, match="already"):
        half_precision(pipe, "unet")
