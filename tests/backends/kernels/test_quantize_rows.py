"""Rows in float8, and their product."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from diffopt.backends.kernels.launching import FP8_MOST
from diffopt.backends.kernels.quantize_rows import quantize_rows, reference, scaled_matmul


def test_rows_come_back_to_the_rounding_at_any_shape(
    draws: Iterator[Any], close_in_float8: Callable[..., None]
) -> None:
    for draw in draws:
        x = draw.tensor(draw.upto(2), draw.upto(3), draw.upto(70)) * 10 ** draw.upto(3, least=-3)
        rows, scales = quantize_rows(x)
        assert (rows.double().abs().amax(dim=1) == FP8_MOST).all(), "a row's greatest value uses the whole range"
        close_in_float8(rows, scales, x.double().reshape(-1, x.shape[-1]))


def test_rows_of_zeros_stay_zeros() -> None:
    rows, scales = quantize_rows(torch.zeros(3, 8))
    assert (rows.float() == 0).all()
    assert (scales > 0).all()


def test_the_product_is_that_of_the_widened_rows(draws: Iterator[Any], close: Callable[..., None]) -> None:
    for draw in list(draws)[:50]:
        k, n = 16 * draw.upto(2), 16 * draw.upto(3)
        left, right = reference(draw.tensor(draw.upto(5), k)), reference(draw.tensor(n, k))
        bias = draw.tensor(n) if draw.maybe() else None
        found = scaled_matmul(*left, *right, bias)
        wide = [rows.double() * scales.double() for rows, scales in (left, right)]
        close(found, wide[0] @ wide[1].t() + (0 if bias is None else bias.double()))
