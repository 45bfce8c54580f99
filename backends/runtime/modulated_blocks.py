"""Blocks and norms of diffusers 0.42 with adaptive layer norm, each norm and its residual in one kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from diffusers.models.attention import BasicTransformerBlock, JointTransformerBlock
from diffusers.models.normalization import (
    AdaLayerNormContinuous,
    AdaLayerNormZero,
    AdaLayerNormZeroSingle,
)
from diffusers.models.transformers.transformer_flux import FluxTransformerBlock

from diffopt.backends.kernels.modulate import add_modulate, modulate


def fits(part: Any) -> bool:
    """Tell whether a block or norm is of the form that is written out here: its layer norms have no weights."""
    names: tuple[str, ...] = ("norm",)
    if isinstance(part, FluxTransformerBlock):
        names = ("norm2", "norm2_context")
    if isinstance(part, JointTransformerBlock):
        if part._chunk_size is not None:
            return False
        names = ("norm2",) if part.context_pre_only else ("norm2", "norm2_context")
    if isinstance(part, BasicTransformerBlock):
        plain = part.norm_type == "ada_norm_single" and part.pos_embed is None and part._chunk_size is None
        if not plain or part.attn2 is None or hasattr(part, "fuser"):
            return False
        names = ("norm1", "norm2")
    norms = [getattr(part, name) for name in names]
    return all(type(norm) is torch.nn.LayerNorm and norm.weight is None for norm in norms)


def _zero(
    norm: Any, x: torch.Tensor, timestep: Any = None, class_labels: Any = None, hidden_dtype: Any = None,
    emb: torch.Tensor | None = None,
) -> Any:  # fmt: skip
    if norm.emb is not None:
        emb = norm.emb(timestep, class_labels, hidden_dtype=hidden_dtype)
    shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = norm.linear(norm.silu(emb)).chunk(6, dim=1)
    return modulate(x, scale, shift, norm.norm.eps), gate, shift_mlp, scale_mlp, gate_mlp


def _zero_single(norm: Any, x: torch.Tensor, emb: torch.Tensor | None = None) -> Any:
    shift, scale, gate = norm.linear(norm.silu(emb)).chunk(3, dim=1)
    return modulate(x, scale, shift, norm.norm.eps), gate


def _continuous(norm: Any, x: torch.Tensor, conditioning_embedding: torch.Tensor) -> Any:
    scale, shift = norm.linear(norm.silu(conditioning_embedding).to(x.dtype)).chunk(2, dim=1)
    return modulate(x, scale, shift, norm.norm.eps)


def _flux(
    block: Any, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor, temb: torch.Tensor,
    image_rotary_emb: Any = None, joint_attention_kwargs: dict[str, Any] | None = None,
) -> Any:  # fmt: skip
    image, gate, shift_mlp, scale_mlp, gate_mlp = block.norm1(hidden_states, emb=temb)
    text, text_gate, text_shift, text_scale, text_gate_mlp = block.norm1_context(encoder_hidden_states, emb=temb)
    attended = block.attn(
        hidden_states=image,
        encoder_hidden_states=text,
        image_rotary_emb=image_rotary_emb,
        **(joint_attention_kwargs or {}),
    )
    hidden, normed = add_modulate(hidden_states, attended[0], gate, scale_mlp, shift_mlp, block.norm2.eps)
    hidden = hidden + gate_mlp.unsqueeze(1) * block.ff(normed)
    if len(attended) == 3:
        hidden = hidden + attended[2]
    context, normed = add_modulate(
        encoder_hidden_states, attended[1], text_gate, text_scale, text_shift, block.norm2_context.eps
    )
    context = context + text_gate_mlp.unsqueeze(1) * block.ff_context(normed)
    return context.clip(-65504, 65504) if context.dtype == torch.float16 else context, hidden


def _joint(
    block: Any, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor, temb: torch.Tensor,
    joint_attention_kwargs: dict[str, Any] | None = None,
) -> Any:  # fmt: skip
    """Stable Diffusion 3 and 3.5: a second attention of the image alone in some blocks, no text behind the last."""
    own = joint_attention_kwargs or {}
    image, gate, shift_mlp, scale_mlp, gate_mlp, *second = block.norm1(hidden_states, emb=temb)
    if block.context_pre_only:
        text, rest = block.norm1_context(encoder_hidden_states, temb), []
    else:
        text, *rest = block.norm1_context(encoder_hidden_states, emb=temb)
    attended, text_attended = block.attn(hidden_states=image, encoder_hidden_states=text, **own)
    if block.use_dual_attention:
        hidden_states = hidden_states + gate.unsqueeze(1) * attended
        attended, gate = block.attn2(hidden_states=second[0], **own), second[1]
    hidden, normed = add_modulate(hidden_states, attended, gate, scale_mlp, shift_mlp, block.norm2.eps)
    hidden = hidden + gate_mlp.unsqueeze(1) * block.ff(normed)
    if block.context_pre_only:
        return None, hidden
    text_gate, text_shift, text_scale, text_gate_mlp = rest
    context, normed = add_modulate(
        encoder_hidden_states, text_attended, text_gate, text_scale, text_shift, block.norm2_context.eps
    )
    return context + text_gate_mlp.unsqueeze(1) * block.ff_context(normed), hidden


def _single(
    block: Any, hidden_states: torch.Tensor, attention_mask: Any = None, encoder_hidden_states: Any = None,
    encoder_attention_mask: Any = None, timestep: Any = None, cross_attention_kwargs: dict[str, Any] | None = None,
    class_labels: Any = None, added_cond_kwargs: Any = None,
) -> Any:  # fmt: skip
    """PixArt: one table of shifts, scales and gates, the time added to it."""
    own = {key: value for key, value in (cross_attention_kwargs or {}).items() if key != "gligen"}
    table = block.scale_shift_table[None] + timestep.reshape(hidden_states.shape[0], 6, -1)
    shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = table.unbind(1)
    attended = block.attn1(
        modulate(hidden_states, scale, shift, block.norm1.eps),
        encoder_hidden_states=encoder_hidden_states if block.only_cross_attention else None,
        attention_mask=attention_mask,
        **own,
    )
    hidden = gate[:, None] * attended + hidden_states
    attended = block.attn2(
        hidden, encoder_hidden_states=encoder_hidden_states, attention_mask=encoder_attention_mask, **own
    )
    one = torch.ones((1, hidden.shape[-1]), dtype=hidden.dtype, device=hidden.device)
    hidden, normed = add_modulate(hidden, attended, one, scale_mlp, shift_mlp, block.norm2.eps)
    return gate_mlp[:, None] * block.ff(normed) + hidden


FORMS: Mapping[type, tuple[Callable[..., Any], int]] = MappingProxyType(
    {
        AdaLayerNormZero: (_zero, 1),
        AdaLayerNormZeroSingle: (_zero_single, 1),
        AdaLayerNormContinuous: (_continuous, 1),
        FluxTransformerBlock: (_flux, 2),
        JointTransformerBlock: (_joint, 2),
        BasicTransformerBlock: (_single, 2),
    }
)
"""What takes the place of the forward of each class, and how many norms it has of its own."""
