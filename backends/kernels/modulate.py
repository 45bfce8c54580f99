"""Adaptive layer norm: `norm(x) · (1 + scale) + shift`, after a gated residual where one is given, into float8 on request."""

import torch
from torch.library import triton_op, wrap_triton

from diffopt.backends.kernels.launching import FP8_MOST, jit, on_triton, power_of_two, tl, tuned


@tuned((4, 8), ["width", "RESIDUAL", "QUANTIZE"])
@jit
def _modulate(  # type: ignore[no-untyped-def]
    x_ptr, y_ptr, gate_ptr, scale_ptr, shift_ptr, sum_ptr, out_ptr, row_scale_ptr,
    tokens, width, eps, x_batch, x_token, y_batch, y_token, gate_batch, scale_batch, shift_batch,
    MOST: tl.constexpr, RESIDUAL: tl.constexpr, QUANTIZE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    batch, token = row // tokens, row % tokens
    column = tl.arange(0, BLOCK)
    inside = column < width
    x = tl.load(x_ptr + batch * x_batch + token * x_token + column, mask=inside, other=0.0).to(tl.float32)
    if RESIDUAL:
        y = tl.load(y_ptr + batch * y_batch + token * y_token + column, mask=inside, other=0.0).to(tl.float32)
        gate = tl.load(gate_ptr + batch * gate_batch + column, mask=inside, other=0.0).to(tl.float32)
        x = x + gate * y
        tl.store(sum_ptr + row * width + column, x, mask=inside)
    mean = tl.sum(x, axis=0) / width
    centred = tl.where(inside, x - mean, 0.0)
    variance = tl.sum(centred * centred, axis=0) / width
    scale = tl.load(scale_ptr + batch * scale_batch + column, mask=inside, other=0.0).to(tl.float32)
    shift = tl.load(shift_ptr + batch * shift_batch + column, mask=inside, other=0.0).to(tl.float32)
    result = centred * (1.0 / tl.sqrt(variance + eps)) * (1.0 + scale) + shift
    if QUANTIZE:
        result = tl.where(inside, result, 0.0)
        row_scale = tl.maximum(tl.max(tl.abs(result), axis=0), 1e-12) / MOST
        tl.store(row_scale_ptr + row, row_scale)
        result = tl.minimum(tl.maximum(result / row_scale, -MOST), MOST)
    tl.store(out_ptr + row * width + column, result.to(out_ptr.dtype.element_ty), mask=inside)


@triton_op("diffopt::modulate", mutates_args={})
def modulate(x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor, eps: float) -> torch.Tensor:
    """Return `layer_norm(x) · (1 + scale) + shift`, the norm without weights of its own.

    x: (batch, tokens, width); scale, shift: (batch or 1, width), strides as they come. Returns x's dtype, dense.
    Source: Peebles and Xie, Scalable Diffusion Models with Transformers, 2022.
    """
    if not on_triton(x, scale, shift):
        return reference(x, scale, shift, eps)
    x, scale, shift = _rows(x), _vectors(scale, x), _vectors(shift, x)
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    wrap_triton(_modulate)[(x.shape[0] * x.shape[1],)](
        x, x, scale, scale, shift, x, out, scale,
        x.shape[1], x.shape[2], eps, x.stride(0), x.stride(1), 0, 0, 0, scale.stride(0), shift.stride(0),
        MOST=FP8_MOST, RESIDUAL=False, QUANTIZE=False, BLOCK=power_of_two(x.shape[2]),
    )  # fmt: skip
    return out


@triton_op("diffopt::modulate_quantized", mutates_args={})
def modulate_quantized(
    x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the same in float8 rows with a scale each: float8_e4m3fn (batch · tokens, width), float32 (rows, 1)."""
    from diffopt.backends.kernels import quantize_rows

    if not on_triton(x, scale, shift):
        return quantize_rows.reference(reference(x, scale, shift, eps).reshape(-1, x.shape[-1]))
    x, scale, shift = _rows(x), _vectors(scale, x), _vectors(shift, x)
    rows = x.shape[0] * x.shape[1]
    out = torch.empty((rows, x.shape[2]), dtype=torch.float8_e4m3fn, device=x.device)
    row_scales = torch.empty((rows, 1), dtype=torch.float32, device=x.device)
    wrap_triton(_modulate)[(rows,)](
        x, x, scale, scale, shift, x, out, row_scales,
        x.shape[1], x.shape[2], eps, x.stride(0), x.stride(1), 0, 0, 0, scale.stride(0), shift.stride(0),
        MOST=FP8_MOST, RESIDUAL=False, QUANTIZE=True, BLOCK=power_of_two(x.shape[2]),
    )  # fmt: skip
    return out, row_scales


@triton_op("diffopt::add_modulate", mutates_args={})
def add_modulate(
    x: torch.Tensor, y: torch.Tensor, gate: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `x + gate · y`, and that sum normed and modulated, reading and writing each once.

    x, y: (batch, tokens, width); gate, scale, shift: (batch or 1, width).
    """
    if not on_triton(x, y, gate, scale, shift):
        total = x + gate[:, None] * y
        return total, reference(total, scale, shift, eps)
    x, y, gate, scale, shift = _rows(x), _rows(y), _vectors(gate, x), _vectors(scale, x), _vectors(shift, x)
    total, out = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for _ in range(2))
    wrap_triton(_modulate)[(x.shape[0] * x.shape[1],)](
        x, y, gate, scale, shift, total, out, scale,
        x.shape[1], x.shape[2], eps, x.stride(0), x.stride(1), y.stride(0), y.stride(1),
        gate.stride(0), scale.stride(0), shift.stride(0),
        MOST=FP8_MOST, RESIDUAL=True, QUANTIZE=False, BLOCK=power_of_two(x.shape[2]),
    )  # fmt: skip
    return total, out


def reference(x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor, eps: float) -> torch.Tensor:
    """Compute the same in torch, as diffusers does."""
    normed = torch.nn.functional.layer_norm(x, x.shape[-1:], eps=eps)
    return normed * (1 + scale[:, None]) + shift[:, None]


def _rows(x: torch.Tensor) -> torch.Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _vectors(vectors: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Return one vector for each image of the batch."""
    dense = vectors if vectors.stride(-1) == 1 else vectors.contiguous()
    return dense.expand(x.shape[0], -1)
