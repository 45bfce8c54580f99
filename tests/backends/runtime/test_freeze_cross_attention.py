from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from diffopt.backends import BackendError
from diffopt.backends.runtime import follow_step_plan, freeze_cross_attention, witnesses


def test_it_gives_what_a_gate_in_the_step_plan_gives(
    pipe: Any, load: Callable[[], Any], picture: Callable[..., torch.Tensor]
) -> None:
    other = load()
    follow_step_plan(pipe, steps=4, full=range(2), guided=range(2), cross_attention=True)
    freeze_cross_attention(other, "unet", gate=0.5)
    follow_step_plan(other, steps=4, guided=range(2))
    assert torch.allclose(picture(other), picture(pipe), atol=1e-5)


def test_it_stands_beside_a_cache_of_features(pipe: Any, picture: Callable[..., torch.Tensor]) -> None:
    freeze_cross_attention(pipe, "unet", gate=0.5)
    follow_step_plan(pipe, steps=4, full=range(0, 4, 2), guided=range(2))
    first = picture(pipe)
    assert torch.isfinite(first).all()
    assert torch.equal(picture(pipe), first)
    counts = {witness.transform: witness.count for witness in witnesses(pipe)}
    assert counts["cache-features"] == counts["guidance-window"] == 4
    assert counts["freeze_cross_attention"] > 0


def test_refuses_a_second_time(pipe: Any) -> None:
    freeze_cross_attention(pipe, "unet", gate=0.5)
    with pytest.raises(BackendError, match="cannot follow freeze_cross_attention"):
        freeze_cross_attention(pipe, "unet", gate=0.5)


def test_transformers_with_cross_attention_can_be_frozen_and_others_not(tiny_of: Any, latents: Any) -> None:
    pipe, call = tiny_of("pixart")
    freeze_cross_attention(pipe, "transformer", gate=0.5)
    assert torch.isfinite(latents(pipe, call)).all()
    assert witnesses(pipe)[0].count > 0
    with pytest.raises(BackendError, match="no cross-attention of its own"):
        freeze_cross_attention(tiny_of("sd3")[0], "transformer", gate=0.5)
