"""Group norm and SiLU over images of any layout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from diffopt.backends.kernels import group_norm
from diffopt.backends.kernels.group_norm import group_norm_silu, reference

WAYS = {"one program a group": 1 << 30, "three launches": 0}


def _arguments(draw: Any) -> tuple[Any, ...]:
    batch, groups, size = draw.random.choice([1, 1, 1, 2]), draw.upto(2), draw.upto(5)
    spatial = [draw.upto(4, least=2) for _ in range(draw.random.choice([1, 2, 2, 2, 3]))]
    x = draw.tensor(batch, groups * size, *spatial) * 3 + 1
    layout = {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.ndim)
    if layout is not None and draw.maybe():
        x = x.contiguous(memory_format=layout)
    weight, bias = (draw.tensor(groups * size), draw.tensor(groups * size)) if draw.maybe() else (None, None)
    added = draw.tensor(batch if draw.maybe() else 1, groups * size) if draw.maybe() else None
    return x, groups, weight, bias, 1e-3, added, draw.maybe()


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_computes_what_float64_does_at_any_shape(
    draws: Iterator[Any], close: Callable[..., None], double: Callable[..., list[Any]], way: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for draw in draws:
        arguments = _arguments(draw)
        monkeypatch.setattr(group_norm, "BLOCKS", draw.random.choice([1, 2, 256]))
        found = group_norm_silu(*arguments, WAYS[way])
        assert found.dtype == arguments[0].dtype
        close(found, reference(*double(*arguments)))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
def test_the_layout_of_the_images_stays(way: str, last: bool) -> None:
    x = torch.randn(2, 6, 3, 4, generator=torch.Generator().manual_seed(0))
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    assert group_norm_silu(x, 3, None, None, 1e-5, None, True, WAYS[way]).stride() == x.stride()


@pytest.mark.parametrize("blocks", [1, 3, 256])
@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
def test_images_of_many_blocks_far_from_zero_keep_their_spread(
    blocks: int, last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_norm, "BLOCKS", blocks)
    x = 100 + torch.randn(1, 2, 47, 53, generator=torch.Generator().manual_seed(0))
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    wanted = reference(x.double(), 1, None, None, 1e-6, None, False)
    found = group_norm_silu(x, 1, None, None, 1e-6, None, False, 0)
    assert (found.double() - wanted).norm() / wanted.norm() < 1e-4  # sums of squares in float32 would lose 1e-3
