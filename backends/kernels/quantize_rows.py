"""Rows in float8 with a scale each, and the matrix product that takes them."""

import torch
from torch.library import triton_op, wrap_triton

from diffopt.backends.kernels.launching import FP8_MOST, jit, on_triton, power_of_two, rows_of, tl, tuned


@tuned((4, 8), ["width"])
@jit
def _quantize(x_ptr, out_ptr, scale_ptr, width, row_stride, MOST: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < width
    value = tl.load(x_ptr + row * row_stride + column, mask=inside, other=0.0).to(tl.float32)
    scale = tl.maximum(tl.max(tl.abs(value), axis=0), 1e-12) / MOST
    tl.store(scale_ptr + row, scale)
    quantized = tl.minimum(tl.maximum(value / scale, -MOST), MOST)
    tl.store(out_ptr + row * width + column, quantized.to(out_ptr.dtype.element_ty), mask=inside)


@triton_op("diffopt::quantize_rows", mutates_args={})
def quantize_rows(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the rows of x in float8, and what to multiply each by to have it back.

    x: (..., width), float32, bfloat16 or float16. Returns float8_e4m3fn (rows, width) and float32 (rows, 1); a row's
    greatest value becomes 448.
    """
    rows = rows_of(x)
    if not on_triton(x):
        return reference(rows)
    out = torch.empty(rows.shape, dtype=torch.float8_e4m3fn, device=x.device)
    scales = torch.empty((rows.shape[0], 1), dtype=torch.float32, device=x.device)
    wrap_triton(_quantize)[(rows.shape[0],)](
        rows, out, scales, rows.shape[1], rows.stride(0), MOST=FP8_MOST, BLOCK=power_of_two(rows.shape[1])
    )
    return out, scales


def reference(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the same in torch."""
    scales = rows.abs().amax(dim=-1, keepdim=True).float().clamp(min=1e-12) / FP8_MOST
    return (rows.float() / scales).clamp(-FP8_MOST, FP8_MOST).to(torch.float8_e4m3fn), scales


def scaled_matmul(
    rows: torch.Tensor, scales: torch.Tensor, weight: torch.Tensor, weight_scales: torch.Tensor,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:  # fmt: skip
    """Return `(rows · scales) @ (weight · weight_scales)ᵀ + bias` in bfloat16, summed in float32.

    rows (m, k) and weight (n, k): float8_e4m3fn, k and n multiples of 16; scales: float32 (m, 1), (n, 1).
    On a GPU torch's row-wise scaled product does it, the scales in its epilogue; elsewhere the rows are widened.
    """
    if rows.is_cuda:
        return torch._scaled_mm(
            rows,
            weight.t(),
            scale_a=scales,
            scale_b=weight_scales.t(),
            bias=bias,
            out_dtype=torch.bfloat16,
            use_fast_accum=True,
        )
    product = (rows.float() * scales) @ (weight.float() * weight_scales).t()
    return (product if bias is None else product + bias.float()).to(torch.bfloat16)
