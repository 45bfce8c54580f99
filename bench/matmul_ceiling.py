"""What this processor can do at most: matrix products in float32 and bfloat16, and how far a module is from it."""

from __future__ import annotations

import time
from collections.abc import Callable

from diffopt.bench.statistics import median

SIZE = 1024
"""Rows and columns of the square matrices: larger ones are no faster here, and take longer."""
TYPES = {"f32": "float32", "bf16": "bfloat16"}


def matmul_ceilings(
    *, repeats: int = 7, size: int = SIZE, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Return GFLOP/s of torch's matrix product by precision, on as many threads as torch has; medians of `repeats`."""
    import torch

    found = {}
    for precision, name in TYPES.items():
        generator = torch.Generator().manual_seed(0)
        one, other = (torch.randn(size, size, generator=generator).to(getattr(torch, name)) for _ in range(2))
        took = []
        for _ in range(repeats + 2):
            started = clock()
            torch.mm(one, other)
            took.append(clock() - started)
        found[precision] = 2 * size**3 / median(took[2:]) / 1e9
    return found


def count_flops(run: Callable[[], object]) -> float:
    """Return the floating-point operations of matrix products, convolutions and attention in one run of torch code."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


__all__ = ["count_flops", "matmul_ceilings"]
