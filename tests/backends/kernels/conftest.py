"""Kernels in Triton's interpreter, over random shapes, with memory poisoned before they write to it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest
import torch

from diffopt.backends.kernels import launching

SHAPES, THOROUGH = 40, 200
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7}
"""A unit in the last place as a relative error, and in float32 what sums add: the interpreter cuts numbers off."""


class Draw:
    """Draws shapes, dtypes and tensors of odd sizes and strides, the same at each run."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self._generator = torch.Generator().manual_seed(seed)
        self.dtype = self.random.choice([torch.float32, torch.bfloat16, torch.float16])

    def upto(self, most: int, *, least: int = 1) -> int:
        return self.random.randint(least, most)

    def maybe(self) -> bool:
        return self.random.random() < 0.5

    def tensor(self, *shape: int, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Return random numbers, every other time as a view that is not dense."""
        dtype = dtype or self.dtype
        if self.maybe():
            return torch.randn(*shape, generator=self._generator).to(dtype)
        if self.maybe():
            wider = torch.randn(*shape[:-1], 3 + shape[-1], generator=self._generator)
            return wider.to(dtype)[..., 2:-1]
        return torch.randn(*shape[::-1], generator=self._generator).to(dtype).permute(*reversed(range(len(shape))))


Draws: TypeAlias = Iterator[Draw]


@pytest.fixture
def draws(request: pytest.FixtureRequest) -> Draws:
    """Draws for as many shapes as every kernel is tried on."""
    assert launching.interpreted()
    return (Draw(seed) for seed in range(THOROUGH if request.config.getoption("--thorough") else SHAPES))


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill fresh memory with what is no number, so that an element a kernel leaves out is seen."""
    for name in ("empty", "empty_like"):
        monkeypatch.setattr(torch, name, _poisoning(getattr(torch, name)))


def _poisoning(original: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def fresh(*args: Any, **kwargs: Any) -> torch.Tensor:
        made = original(*args, **kwargs)
        if made.dtype == torch.float8_e4m3fn:
            made.view(torch.uint8).fill_(0x7F)
        elif made.is_floating_point():
            made.fill_(float("nan"))
        return made

    return fresh


@pytest.fixture
def close() -> Callable[..., None]:
    """Return a check of a result against a reference in float64, by the norm of the difference."""

    def check(found: torch.Tensor, wanted: torch.Tensor, dtype: torch.dtype | None = None) -> None:
        assert found.shape == wanted.shape
        assert wanted.dtype == torch.float64
        off = (found.double() - wanted).norm() / wanted.norm().clamp(min=1e-3)
        assert off <= TOLERANCE[dtype or found.dtype], (float(off), found.shape, found.dtype)

    return check


@pytest.fixture
def double() -> Callable[..., list[Any]]:
    """Return what widens every float tensor among arguments."""
    return lambda *given: [x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in given]


@pytest.fixture
def close_in_float8() -> Callable[..., None]:
    """Return a check of rows in float8 and their scales against what they stand for, to half a unit in the last place.

    Triton's interpreter (3.9) loses the carry where rounding up reaches a power of two, and gives half of it; such numbers
    are left out, and must be few. On a GPU `bench/gpu/kernels.py` checks all.
    """

    def check(rows: torch.Tensor, scales: torch.Tensor, wanted: torch.Tensor) -> None:
        assert (rows.dtype, scales.dtype, scales.shape) == (torch.float8_e4m3fn, torch.float32, (len(rows), 1))
        value, got = wanted / scales.double(), rows.double()
        carried = (2 * got.abs() == 2 ** value.abs().clamp(min=2.0**-9).log2().ceil()) & (value.abs() > 1.8 * got.abs())
        assert carried.double().mean() <= 0.2 or carried.sum() <= 2
        off = (got - value)[~carried].norm() / value.norm().clamp(min=1e-3)
        assert off <= 1 / 16, (float(off), rows.shape)

    return check
