"""The gate of a GEGLU layer: `x · gelu(gate)`, where both halves come out of one projection."""

import torch
from torch.library import triton_op, wrap_triton

from diffopt.backends.kernels.launching import FP8_MOST, jit, on_triton, power_of_two, rows_of, tl, tuned


@tuned((4, 8), ["width"], ({"BLOCK": 1024}, {"BLOCK": 2048}))
@jit
def _geglu(x_ptr, out_ptr, width, row_stride, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    value = tl.load(x_ptr + row * row_stride + column, mask=inside, other=0.0).to(tl.float32)
    gate = tl.load(x_ptr + row * row_stride + width + column, mask=inside, other=0.0).to(tl.float32)
    gelu = 0.5 * gate * (1.0 + tl.erf(gate * 0.7071067811865476))
    tl.store(out_ptr + row * width + column, value * gelu, mask=inside)


@tuned((4, 8), ["width"])
@jit
def _geglu_quantized(x_ptr, out_ptr, scale_ptr, width, row_stride, MOST: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < width
    value = tl.load(x_ptr + row * row_stride + column, mask=inside, other=0.0).to(tl.float32)
    gate = tl.load(x_ptr + row * row_stride + width + column, mask=inside, other=0.0).to(tl.float32)
    result = value * (0.5 * gate * (1.0 + tl.erf(gate * 0.7071067811865476)))
    scale = tl.maximum(tl.max(tl.abs(result), axis=0), 1e-12) / MOST
    tl.store(scale_ptr + row, scale)
    quantized = tl.minimum(tl.maximum(result / scale, -MOST), MOST)
    tl.store(out_ptr + row * width + column, quantized.to(out_ptr.dtype.element_ty), mask=inside)


@triton_op("diffopt::geglu", mutates_args={})
def geglu(x: torch.Tensor) -> torch.Tensor:
    """Return `value · gelu(gate)` of `x = [value, gate]` along the last dimension; gelu is the exact one.

    x: (..., 2 · width), float32, bfloat16 or float16; computed in float32. Returns (..., width), dense.
    Source: Shazeer, GLU Variants Improve Transformer, 2020.
    """
    if not on_triton(x):
        return reference(x)
    rows, width = rows_of(x), x.shape[-1] // 2
    out = torch.empty((*x.shape[:-1], width), dtype=x.dtype, device=x.device)
    wrap_triton(_geglu)[lambda meta: (rows.shape[0], -(-width // meta["BLOCK"]))](rows, out, width, rows.stride(0))
    return out


@triton_op("diffopt::geglu_quantized", mutates_args={})
def geglu_quantized(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the same in float8 rows with a scale each: float8_e4m3fn (rows, width), float32 (rows, 1)."""
    from diffopt.backends.kernels import quantize_rows

    rows, width = rows_of(x), x.shape[-1] // 2
    if not on_triton(x):
        return quantize_rows.reference(reference(rows))
    out = torch.empty((rows.shape[0], width), dtype=torch.float8_e4m3fn, device=x.device)
    scales = torch.empty((rows.shape[0], 1), dtype=torch.float32, device=x.device)
    wrap_triton(_geglu_quantized)[(rows.shape[0],)](
        rows, out, scales, width, rows.stride(0), MOST=FP8_MOST, BLOCK=power_of_two(width)
    )
    return out, scales


def reference(x: torch.Tensor) -> torch.Tensor:
    """Compute the same in torch, as diffusers does."""
    value, gate = x.chunk(2, dim=-1)
    return value * torch.nn.functional.gelu(gate)
