"""What kernels are launched with: Triton where it is installed, and which tensors go to it."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch._subclasses.fake_tensor import is_fake

try:
    import triton
    import triton.language as tl
    import triton.testing
except ModuleNotFoundError:  # the reference is computed then
    triton, tl = None, SimpleNamespace(constexpr=object)

__all__ = ["FP8_MOST", "interpreted", "jit", "on_triton", "power_of_two", "rows_of", "tl", "triton", "tuned"]

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
FP8_MOST = 448.0
"""The greatest finite float8_e4m3fn."""


def on_triton(*tensors: torch.Tensor | None) -> bool:
    """Tell whether a kernel can take these tensors: on a GPU, or anywhere in Triton's interpreter."""
    if triton is None:
        return False
    given = [tensor for tensor in tensors if tensor is not None]
    if any(tensor.dtype not in FLOATS or tensor.numel() == 0 for tensor in given):
        return False
    if all(tensor.is_cuda for tensor in given):
        return True
    return interpreted() and not any(tensor.is_meta or is_fake(tensor) for tensor in given)


def interpreted() -> bool:
    """Tell whether Triton interprets its kernels (`TRITON_INTERPRET=1` when the kernels were imported)."""
    return triton is not None and bool(triton.knobs.runtime.interpret)


def jit(function: Callable[..., None]) -> Any:
    """Make a Triton kernel of a function; without Triton it stays a function that nobody calls."""
    return function if triton is None else triton.jit(function)


def tuned(warps: tuple[int, ...], key: list[str], blocks: tuple[dict[str, int], ...] = ({},)) -> Any:
    """Return a decorator that makes a kernel tried with each number of warps and each set of block sizes.

    key: the arguments at whose new values it is tried anew. The interpreter takes the first of them all.
    """
    if triton is None:
        return lambda function: function
    configs = [triton.Config(dict(block), num_warps=count) for block in blocks for count in warps]
    return triton.autotune(configs=configs[:1] if interpreted() else configs, key=key, do_bench=_timed)


def _timed(call: Callable[[], None], quantiles: Sequence[float]) -> Any:
    """Time one way to launch a kernel, far shorter than Triton does: these kernels take microseconds."""
    return triton.testing.do_bench(call, warmup=2, rep=10, quantiles=quantiles)


def power_of_two(number: int) -> int:
    """Return the least power of two that is not below the number."""
    return 1 << max(number - 1, 0).bit_length()


def rows_of(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor as a matrix whose rows lie dense, copied only where it must be."""
    matrix = tensor.reshape(-1, tensor.shape[-1])
    return matrix if matrix.stride(-1) == 1 else matrix.contiguous()
