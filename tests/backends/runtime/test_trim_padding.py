"""Padding that the denoiser masks is cut off, and the images stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from diffopt.backends.base import BackendError
from diffopt.backends.runtime import trim_padding, witnesses


def _padded(call: dict[str, Any]) -> dict[str, Any]:
    """Give both prompts six tokens more that only the mask tells from those that count."""
    more = torch.randn(1, 6, 12, generator=torch.Generator().manual_seed(1))
    given = dict(call)
    for name in ("prompt", "negative_prompt"):
        given[f"{name}_embeds"] = torch.cat([call[f"{name}_embeds"], more], dim=1)
        given[f"{name}_attention_mask"] = torch.cat([call[f"{name}_attention_mask"], torch.zeros(1, 6)], dim=1)
    return given


def test_the_images_of_a_padded_prompt_stay(
    tiny_of: Callable[[str], Any], latents: Callable[..., torch.Tensor]
) -> None:
    pipe, call = tiny_of("pixart")
    expected = latents(pipe, _padded(call))
    trim_padding(pipe, multiple=2)
    found = latents(pipe, _padded(call))
    assert (found - expected).norm() / expected.norm() < 1e-5
    (seen,) = witnesses(pipe)
    assert (seen.count, seen.detail) == (1, "6 instead of 12 tokens of prompts")


def test_a_full_prompt_is_left_as_it_is(tiny_of: Callable[[str], Any], latents: Callable[..., torch.Tensor]) -> None:
    pipe, call = tiny_of("pixart")
    expected = latents(pipe, call)
    trim_padding(pipe, multiple=2)
    assert torch.equal(latents(pipe, call), expected)
    assert next(iter(witnesses(pipe))).count == 0
    with pytest.raises(BackendError, match="cut off already"):
        trim_padding(pipe)
