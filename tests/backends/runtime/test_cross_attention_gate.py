from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from diffopt.backends import BackendError
from diffopt.backends.runtime import follow_step_plan, witnesses


def test_cross_attention_is_not_computed_past_the_gate(pipe: Any, picture: Callable[..., torch.Tensor]) -> None:
    plain = picture(pipe)
    ran: list[int] = []
    for name, module in pipe.unet.named_modules():
        if name.endswith("attn2.to_q"):
            module.register_forward_hook(lambda *_: ran.append(1))
    count = len([name for name, _ in pipe.unet.named_modules() if name.endswith("attn2")])
    follow_step_plan(pipe, steps=4, full=range(3), cross_attention=True)
    gated = picture(pipe)
    assert len(ran) == 3 * count
    assert not torch.equal(gated, plain)
    assert torch.equal(picture(pipe), gated)
    assert [(witness.transform, witness.count) for witness in witnesses(pipe)] == [("gate-cross-attention", 2)]


def test_a_gate_with_a_guidance_window_is_t_gate(pipe: Any, picture: Callable[..., torch.Tensor]) -> None:
    follow_step_plan(pipe, steps=4, full=range(2), guided=range(2), cross_attention=True)
    assert torch.isfinite(picture(pipe, ["a", "a red circle"])).all()
    assert [witness.count for witness in witnesses(pipe)] == [2, 2]


def test_transformers_with_cross_attention_can_be_gated(tiny_of: Any, latents: Any) -> None:
    pipe, call = tiny_of("pixart")
    follow_step_plan(pipe, component="transformer", steps=4, full=range(2), guided=range(3), cross_attention=True)
    assert torch.isfinite(latents(pipe, call)).all()
    assert [witness.count for witness in witnesses(pipe)] == [2, 1]


def test_refuses_a_transformer_of_joint_attention(tiny_of: Any) -> None:
    pipe, _ = tiny_of("sd3")
    with pytest.raises(BackendError, match="no cross-attention of its own"):
        follow_step_plan(pipe, component="transformer", steps=4, full=range(2), cross_attention=True)
