"""Attention processors that norm, join and rotate queries and keys by `norm_rope`; otherwise as in diffusers 0.42."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.attention_processor import Attention, FusedJointAttnProcessor2_0, JointAttnProcessor2_0
from diffusers.models.normalization import RMSNorm
from diffusers.models.transformers.transformer_flux import FluxAttention, FluxAttnProcessor, _get_qkv_projections

from diffopt.backends.kernels.norm_rope import norm_rope


def fused_processor(part: Any) -> Any | None:
    """Return the processor that may take the place of the one an attention layer has, or None."""
    norms = [getattr(part, name, None) for name in ("norm_q", "norm_k")]
    norms += [norm for name in ("norm_added_q", "norm_added_k") if (norm := getattr(part, name, None)) is not None]
    joined = getattr(part, "added_kv_proj_dim", None) is not None
    if len(norms) != (4 if joined else 2) or not all(_is_rms_norm(norm) for norm in norms):
        return None
    if type(part) is FluxAttention and type(part.processor) is FluxAttnProcessor:
        made = FluxProcessor()
        made._attention_backend = part.processor._attention_backend
        made._parallel_config = part.processor._parallel_config
        return made
    if type(part) is Attention and type(part.processor) in (JointAttnProcessor2_0, FusedJointAttnProcessor2_0):
        return JointProcessor()
    return None


def _is_rms_norm(norm: Any) -> bool:
    is_plain = type(norm) is torch.nn.RMSNorm or (type(norm) is RMSNorm and norm.bias is None)
    return is_plain and norm.weight is not None and norm.eps is not None


def _ready(
    norm: Any, x: torch.Tensor, added_norm: Any, context: torch.Tensor | None, rotation: Any, *, context_first: bool
) -> torch.Tensor:
    cos, sin = (None, None) if rotation is None else (angle.to(x.device) for angle in rotation)
    weight, eps = (None, 0.0) if context is None else (added_norm.weight, added_norm.eps)
    found: torch.Tensor = norm_rope(x, norm.weight, norm.eps, cos, sin, context, weight, eps, context_first)
    return found


class FluxProcessor:
    """Flux: the text first, both rotated."""

    _attention_backend: Any = None
    _parallel_config: Any = None

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: Any = None,
    ) -> Any:
        projected = _get_qkv_projections(attn, hidden_states, encoder_hidden_states)
        joined = encoder_hidden_states is not None and attn.added_kv_proj_dim is not None
        heads = [p.unflatten(-1, (-1, attn.head_dim)) for p in projected[: 6 if joined else 3]]
        query, key, value, text_query, text_key, text_value = heads if joined else (*heads, None, None, None)
        added = (attn.norm_added_q, attn.norm_added_k) if joined else (None, None)
        query = _ready(attn.norm_q, query, added[0], text_query, image_rotary_emb, context_first=True)
        key = _ready(attn.norm_k, key, added[1], text_key, image_rotary_emb, context_first=True)
        value = value if text_value is None else torch.cat([text_value, value], dim=1)
        found = dispatch_attention_fn(
            query, key, value, attn_mask=attention_mask, backend=self._attention_backend,
            parallel_config=self._parallel_config,
        )  # fmt: skip
        found = found.flatten(2, 3).to(query.dtype)
        if encoder_hidden_states is None:
            return found
        texts = encoder_hidden_states.shape[1]
        text, image = found.split_with_sizes([texts, found.shape[1] - texts], dim=1)
        image = attn.to_out[1](attn.to_out[0](image.contiguous()))
        return image, attn.to_add_out(text.contiguous())


class JointProcessor:
    """Stable Diffusion 3.5: the image first, nothing rotated."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        tokens = hidden_states.shape[1]
        projected = (
            attn.to_qkv(hidden_states).chunk(3, dim=-1)
            if getattr(attn, "fused_projections", False)
            else (attn.to_q(hidden_states), attn.to_k(hidden_states), attn.to_v(hidden_states))
        )
        query, key, value = (p.unflatten(-1, (attn.heads, -1)) for p in projected)
        text_query = text_key = added_q = added_k = None
        if encoder_hidden_states is not None:
            projected = (
                attn.to_added_qkv(encoder_hidden_states).chunk(3, dim=-1)
                if getattr(attn, "fused_projections", False)
                else (
                    attn.add_q_proj(encoder_hidden_states),
                    attn.add_k_proj(encoder_hidden_states),
                    attn.add_v_proj(encoder_hidden_states),
                )
            )
            text_query, text_key, text_value = (p.unflatten(-1, (attn.heads, -1)) for p in projected)
            added_q, added_k = attn.norm_added_q, attn.norm_added_k
            value = torch.cat([value, text_value], dim=1)
        query = _ready(attn.norm_q, query, added_q, text_query, None, context_first=False)
        key = _ready(attn.norm_k, key, added_k, text_key, None, context_first=False)
        found = torch.nn.functional.scaled_dot_product_attention(
            query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)
        )
        found = found.transpose(1, 2).flatten(2, 3).to(query.dtype)
        image, text = found[:, :tokens], found[:, tokens:]
        image = attn.to_out[1](attn.to_out[0](image))
        if encoder_hidden_states is None:
            return image
        return image, text if attn.context_pre_only else attn.to_add_out(text)
