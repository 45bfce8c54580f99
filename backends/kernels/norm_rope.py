"""Queries or keys ready for attention: RMS norm of each head, text and image joined, rotary embedding; one pass."""

import torch
from torch.library import triton_op, wrap_triton

from diffopt.backends.kernels.launching import jit, on_triton, power_of_two, tl, tuned


@tuned((4, 8), ["heads", "HEAD", "ROTATE"], ({"HEADS": 8}, {"HEADS": 16}))
@jit
def _norm_rope(  # type: ignore[no-untyped-def]
    x_ptr, context_ptr, weight_ptr, context_weight_ptr, cos_ptr, sin_ptr, out_ptr,
    tokens, context_tokens, context_at, heads, head, eps, context_eps,
    x_batch, x_token, x_head, context_batch, context_token, context_head,
    ROTATE: tl.constexpr, CONTEXT: tl.constexpr, HEAD: tl.constexpr, HEADS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    joined = tokens + context_tokens
    batch, place = row // joined, row % joined
    number = tl.program_id(1) * HEADS + tl.arange(0, HEADS)[:, None]
    column = tl.arange(0, HEAD)[None, :]
    inside = (number < heads) & (column < head)
    at = batch * x_batch + place * x_token + number * x_head + column
    margin = eps
    if CONTEXT:
        # The text lies at `context_at` of the joined sequence: ahead of the image (0), or behind it (`tokens`).
        if (place >= context_at) and (place < context_at + context_tokens):
            at = batch * context_batch + (place - context_at) * context_token + number * context_head + column
            value = tl.load(context_ptr + at, mask=inside, other=0.0).to(tl.float32)
            weight = tl.load(context_weight_ptr + column, mask=column < head, other=0.0).to(tl.float32)
            margin = context_eps
        else:
            if context_at == 0:
                at -= context_tokens * x_token
            value = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)
            weight = tl.load(weight_ptr + column, mask=column < head, other=0.0).to(tl.float32)
    else:
        value = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)
        weight = tl.load(weight_ptr + column, mask=column < head, other=0.0).to(tl.float32)
    mean_square = tl.sum(value * value, axis=1)[:, None] / head
    value = value * (1.0 / tl.sqrt(mean_square + margin)) * weight
    if ROTATE:
        even, odd = tl.split(tl.reshape(value, (HEADS, HEAD // 2, 2)))
        pair = tl.arange(0, HEAD // 2)[None, :]
        # Each angle stands twice in the tables, once for either number of its pair.
        cos = tl.load(cos_ptr + place * head + 2 * pair, mask=2 * pair < head, other=0.0).to(tl.float32)
        sin = tl.load(sin_ptr + place * head + 2 * pair, mask=2 * pair < head, other=0.0).to(tl.float32)
        value = tl.reshape(tl.join(even * cos - odd * sin, odd * cos + even * sin), (HEADS, HEAD))
    tl.store(out_ptr + (row * heads + number) * head + column, value, mask=inside)


@triton_op("diffopt::norm_rope", mutates_args={})
def norm_rope(
    x: torch.Tensor,
    weight: torch.Tensor,
    eps: float,
    cos: torch.Tensor | None,
    sin: torch.Tensor | None,
    context: torch.Tensor | None,
    context_weight: torch.Tensor | None,
    context_eps: float,
    context_first: bool,
) -> torch.Tensor:
    """Return the image's and the text's queries (or keys), each head normed, joined along the sequence, and rotated.

    x: (batch, tokens, heads, head), any strides but a dense head of even size; context: the text's, likewise, or None.
    weight, context_weight: (head,). cos, sin: (tokens of both, head), each angle twice in a row, or None for no rotation.
    Returns (batch, tokens of both, heads, head), dense, in x's dtype; computed in float32.
    Source: Su et al., RoFormer, 2021; Zhang and Sennrich, Root Mean Square Layer Normalization, 2019.
    """
    if not on_triton(x, weight, cos, sin, context, context_weight) or x.shape[-1] % 2:
        return reference(x, weight, eps, cos, sin, context, context_weight, context_eps, context_first)
    x = _dense(x)
    batch, tokens, heads, head = x.shape
    other = x if context is None else _dense(context)
    other_weight = weight if context_weight is None else context_weight
    context_tokens = 0 if context is None else context.shape[1]
    rotated = cos is not None and sin is not None
    cosines = cos.contiguous() if cos is not None else weight
    sines = sin.contiguous() if sin is not None else weight
    out = torch.empty((batch, tokens + context_tokens, heads, head), dtype=x.dtype, device=x.device)
    wrap_triton(_norm_rope)[lambda meta: (batch * (tokens + context_tokens), -(-heads // meta["HEADS"]))](
        x, other, weight, other_weight, cosines, sines, out,
        tokens, context_tokens, 0 if context_first else tokens, heads, head, eps, context_eps,
        x.stride(0), x.stride(1), x.stride(2), other.stride(0), other.stride(1), other.stride(2),
        ROTATE=rotated, CONTEXT=context is not None, HEAD=power_of_two(head),
    )  # fmt: skip
    return out


def reference(
    x: torch.Tensor, weight: torch.Tensor, eps: float, cos: torch.Tensor | None, sin: torch.Tensor | None,
    context: torch.Tensor | None, context_weight: torch.Tensor | None, context_eps: float, context_first: bool,
) -> torch.Tensor:  # fmt: skip
    """Compute the same in torch, as diffusers does."""
    found = torch.nn.functional.rms_norm(x, x.shape[-1:], weight, eps)
    if context is not None:
        text = torch.nn.functional.rms_norm(context, x.shape[-1:], context_weight, context_eps)
        found = torch.cat([text, found] if context_first else [found, text], dim=1)
    if cos is None or sin is None:
        return found
    even, odd = found.reshape(*found.shape[:-1], -1, 2).unbind(-1)
    turned = torch.stack([-odd, even], dim=-1).flatten(-2)
    wide = torch.promote_types(x.dtype, torch.float32)
    return (found.to(wide) * cos[None, :, None] + turned.to(wide) * sin[None, :, None]).to(x.dtype)


def _dense(x: torch.Tensor) -> torch.Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()
