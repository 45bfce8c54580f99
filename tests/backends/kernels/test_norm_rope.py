"""Queries and keys ready for attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from diffopt.backends.kernels.norm_rope import norm_rope, reference


def _arguments(draw: Any) -> tuple[Any, ...]:
    batch, tokens, heads, head = draw.upto(2), draw.upto(2), draw.upto(3), 2 * draw.upto(12)
    texts = draw.upto(2) if draw.maybe() else 0
    context = draw.tensor(batch, texts, heads, head) if texts else None
    angles = draw.tensor(tokens + texts, head // 2, dtype=torch.float32).repeat_interleave(2, dim=1)
    cos, sin = (angles.cos(), angles.sin()) if draw.maybe() else (None, None)
    weight, context_weight = draw.tensor(head), draw.tensor(head) if texts else None
    return (
        draw.tensor(batch, tokens, heads, head), weight, 1e-3, cos, sin, context, context_weight, 1e-2, draw.maybe(),
    )  # fmt: skip


@pytest.mark.slow
def test_computes_what_float64_does_at_any_shape(
    draws: Iterator[Any], close: Callable[..., None], double: Callable[..., list[Any]]
) -> None:
    for draw in draws:
        arguments = _arguments(draw)
        found = norm_rope(*arguments)
        assert (found.dtype, found.is_contiguous()) == (arguments[0].dtype, True)
        close(found, reference(*double(*arguments)))


def test_queries_out_of_one_projection_need_no_copy(
    close: Callable[..., None], double: Callable[..., list[Any]]
) -> None:
    projected = torch.randn(1, 4, 3 * 24, generator=torch.Generator().manual_seed(0))
    query = projected.chunk(3, dim=-1)[0].reshape(1, 4, 3, 8)
    arguments = query, torch.rand(8), 1e-6, None, None, None, None, 0.0, True
    close(norm_rope(*arguments), reference(*double(*arguments)))


def test_heads_of_odd_size_are_computed_by_torch(close: Callable[..., None], double: Callable[..., list[Any]]) -> None:
    arguments = torch.randn(1, 2, 2, 7), torch.rand(7), 1e-6, None, None, None, None, 0.0, True
    close(norm_rope(*arguments), reference(*double(*arguments)))
