"""What a cache adds in place of skipped blocks: the input and what they changed last time, carried on along its slope."""

import torch
from torch.library import triton_op, wrap_triton

from diffopt.backends.kernels.launching import jit, on_triton, tl, tuned


@tuned((4, 8), ["numel"], ({"BLOCK": 1024}, {"BLOCK": 2048}))
@jit
def _add_residual(  # type: ignore[no-untyped-def]
    x_ptr, residual_ptr, slope_ptr, weight_ptr, out_ptr, numel, SLOPE: tl.constexpr, BLOCK: tl.constexpr
):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < numel
    total = tl.load(x_ptr + at, mask=inside, other=0.0).to(tl.float32)
    total += tl.load(residual_ptr + at, mask=inside, other=0.0).to(tl.float32)
    if SLOPE:
        total += tl.load(weight_ptr) * tl.load(slope_ptr + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + at, total, mask=inside)


@triton_op("diffopt::add_residual", mutates_args={})
def add_residual(
    x: torch.Tensor, residual: torch.Tensor, slope: torch.Tensor | None, weight: torch.Tensor | None
) -> torch.Tensor:
    """Return `x + residual + weight · slope`, dense, in x's dtype; without a slope, `x + residual`.

    x, residual, slope: one shape, any float dtype. weight: float32 with one element, on the device.
    Source: Liu et al., From Reusing to Forecasting: TaylorSeer, 2025.
    """
    if not on_triton(x, residual, slope, weight):
        return reference(x, residual, slope, weight)
    start, kept = x.contiguous(), residual.contiguous()
    drift, factor = (kept if slope is None else slope.contiguous()), (kept if weight is None else weight)
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    numel = x.numel()
    wrap_triton(_add_residual)[lambda meta: (-(-numel // meta["BLOCK"]),)](
        start, kept, drift, factor, out, numel, SLOPE=slope is not None
    )
    return out


def reference(
    x: torch.Tensor, residual: torch.Tensor, slope: torch.Tensor | None, weight: torch.Tensor | None
) -> torch.Tensor:
    """Compute the same in torch."""
    if slope is None or weight is None:
        return (x + residual).to(x.dtype)
    wide = torch.promote_types(x.dtype, torch.float32)
    return (x.to(wide) + residual + weight.to(wide) * slope).to(x.dtype)
