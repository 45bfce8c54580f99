"""Adaptive layer norm, with and without a residual, and into float8."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from diffopt.backends.kernels.modulate import add_modulate, modulate, modulate_quantized, reference


def _vectors(draw: Any, batch: int, width: int, count: int) -> list[torch.Tensor]:
    """Draw scales and shifts as blocks have them: slices of one projection, one for all images or one each."""
    return [*draw.tensor(batch if draw.maybe() else 1, count, width).unbind(1)]


@pytest.mark.slow
def test_computes_what_float64_does_at_any_shape(
    draws: Iterator[Any], close: Callable[..., None], double: Callable[..., list[Any]]
) -> None:
    for draw in draws:
        batch, width = draw.upto(2), draw.upto(70, least=2)
        arguments = draw.tensor(batch, draw.upto(3), width), *_vectors(draw, batch, width, 2), 1e-3
        found = modulate(*arguments)
        assert (found.dtype, found.is_contiguous()) == (arguments[0].dtype, True)
        close(found, reference(*double(*arguments)))


@pytest.mark.slow
def test_the_residual_comes_out_too(draws: Iterator[Any], close: Callable[..., None]) -> None:
    for draw in draws:
        batch, tokens, width = draw.upto(2), draw.upto(3), draw.upto(70, least=2)
        x, y = draw.tensor(batch, tokens, width), draw.tensor(batch, tokens, width)
        gate, scale, shift = _vectors(draw, batch, width, 3)
        total, found = add_modulate(x, y, gate, scale, shift, 1e-3)
        wanted = x.double() + gate.double()[:, None] * y.double()
        close(total, wanted)
        close(found, reference(wanted, scale.double(), shift.double(), 1e-3))


@pytest.mark.slow
def test_in_float8_it_is_the_same_to_the_rounding(
    draws: Iterator[Any], close_in_float8: Callable[..., None], double: Callable[..., list[Any]]
) -> None:
    for draw in draws:
        batch, width = draw.upto(2), draw.upto(70, least=2)
        arguments = draw.tensor(batch, draw.upto(2), width), *_vectors(draw, batch, width, 2), 1e-3
        rows, scales = modulate_quantized(*arguments)
        close_in_float8(rows, scales, reference(*double(*arguments)).reshape(-1, width))


def test_numbers_far_from_zero_keep_their_spread() -> None:
    x = 1000 + torch.randn(1, 3, 64, generator=torch.Generator().manual_seed(0))
    scale, shift = torch.zeros(1, 64), torch.zeros(1, 64)
    wanted = reference(x.double(), scale.double(), shift.double(), 1e-6)
    assert (modulate(x, scale, shift, 1e-6).double() - wanted).norm() / wanted.norm() < 1e-4
