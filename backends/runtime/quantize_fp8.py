"""Multiply matrices in 8-bit floating point, with a scale for each row of what enters and each column of weights."""

from __future__ import annotations

from typing import Any, TypeVar

from diffopt.backends.base import BackendError, Witness
from diffopt.backends.runtime.attachment import attachment, component_name

Pipe = TypeVar("Pipe")
BLOCKS = (
    "transformer_blocks",
    "single_transformer_blocks",
    "blocks",
    "layers",
    "down_blocks",
    "mid_block",
    "up_blocks",
)
"""Parts whose layers see every token; what lies outside of them works on a row or two and stays as it is."""

KEPT = ("norm", "time_emb", "adaln", "embed", "scale_shift")
SMALLEST = 32
"""Fewest channels in and out of a layer worth the rounding of what enters it."""


def quantize_fp8(pipe: Pipe, component: str) -> Pipe:
    """Quantize the linear layers of a component's blocks to e4m3, weights once and what enters them at each call.

    Rows are scaled by their own largest value, so nothing overflows whatever comes in. Projections of the prompt in
    cross-attention, norms and embeddings stay as they are. On a device without such arithmetic the same rounding is
    done and the product computed in the layer's own dtype.
    Raises BackendError for an engine, or a component without such layers.
    """
    from diffopt.backends.runtime.fp8_linear import Fp8Linear

    name, state = component_name(pipe, component), attachment(pipe)
    for earlier in ("export", "compile", "quantize", "capture_step"):
        if state.noted(name, earlier) or state.noted("pipeline", earlier):
            raise BackendError(f"{name}: quantize_fp8 cannot follow {earlier}")
    layers: list[Any] = []
    for path, parent in list(getattr(pipe, name).named_modules()):
        if not set(path.split(".")) & set(BLOCKS) or any(word in path for word in KEPT):
            continue
        for child, layer in list(parent.named_children()):
            if _fits(child, layer, parent):
                made = Fp8Linear(layer)
                setattr(parent, child, made)
                layers.append(made)
    if not layers:
        raise BackendError(f"{name} has no layer to quantize")
    state.note(name, "quantize_fp8")
    detail = f"{name}: {len(layers)} layers in e4m3"
    state.witnesses.append(lambda: Witness("quantize_fp8", len(layers), detail))
    return pipe


def _fits(child: str, layer: Any, parent: Any) -> bool:
    from torch import nn

    if type(layer) is not nn.Linear or any(word in child for word in KEPT):
        return False
    if getattr(parent, "is_cross_attention", False) and child in ("to_k", "to_v", "to_kv"):
        return False
    # The parts of fused projections are kept by diffusers, and not used.
    if getattr(parent, "fused_projections", False) and child in (
        "to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj",
    ) and not getattr(parent, "is_cross_attention", False):  # fmt: skip
        return False
    inner, outer = layer.in_features, layer.out_features
    return min(inner, outer) >= SMALLEST and inner % 16 == 0 and outer % 16 == 0
