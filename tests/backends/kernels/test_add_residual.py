"""What a cache adds in place of skipped blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from diffopt.backends.kernels.add_residual import add_residual, reference


def test_computes_what_float64_does_at_any_shape(
    draws: Iterator[Any], close: Callable[..., None], double: Callable[..., list[Any]]
) -> None:
    for draw in draws:
        shape = draw.upto(2), draw.upto(9), draw.upto(70)
        sloped = draw.maybe()
        slope = draw.tensor(*shape) if sloped else None
        weight = draw.tensor(1, dtype=torch.float32) if sloped else None
        arguments = draw.tensor(*shape), draw.tensor(*shape), slope, weight
        found = add_residual(*arguments)
        assert (found.dtype, found.is_contiguous()) == (arguments[0].dtype, True)
        close(found, reference(*double(*arguments)))
