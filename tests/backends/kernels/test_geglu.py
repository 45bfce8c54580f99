"""The gate of GEGLU layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from diffopt.backends.kernels.geglu import geglu, geglu_quantized, reference


def test_computes_what_float64_does_at_any_shape(draws: Iterator[Any], close: Callable[..., None]) -> None:
    for draw in draws:
        x = draw.tensor(draw.upto(2), draw.upto(3), 2 * draw.upto(70))
        found = geglu(x)
        assert (found.dtype, found.is_contiguous()) == (x.dtype, True)
        close(found, reference(x.double()))


def test_in_float8_it_is_the_same_to_the_rounding(draws: Iterator[Any], close_in_float8: Callable[..., None]) -> None:
    for draw in draws:
        x = draw.tensor(draw.upto(3), 2 * draw.upto(70))
        rows, scales = geglu_quantized(x)
        close_in_float8(rows, scales, reference(x.double()))
