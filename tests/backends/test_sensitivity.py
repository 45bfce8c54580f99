"""Layers are narrowed by what was measured of each, and together they stay within the budget."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from diffopt.backends.base import BackendError
from diffopt.backends.runtime.int8 import NarrowLinear, replace_layers
from diffopt.backends.sensitivity import choose, measure_sensitivity


class _Denoiser(nn.Module):
    """Three layers in a row; the middle one has one weight far larger than the others, which 8 bits round away."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.hard, self.last = (nn.Linear(64, 64) for _ in range(3))
        with torch.no_grad():
            self.hard.weight[:, 0] = 60.0

    def forward(self, sample: torch.Tensor, return_dict: bool = True) -> Any:
        return (self.last(self.hard(torch.tanh(self.first(sample)))),)


def _calls() -> list[Any]:
    generator = torch.Generator().manual_seed(1)
    return [((torch.randn(4, 64, generator=generator),), {}) for _ in range(2)]


def test_the_hard_layer_costs_most_and_the_denoiser_is_left_as_it_was() -> None:
    denoiser, calls = _Denoiser(), _calls()
    before = {name: value.clone() for name, value in denoiser.state_dict().items()}
    found = measure_sensitivity(denoiser, calls, "int8-weights")
    assert [layer.layer for layer in found] == ["first", "hard", "last"]
    assert max(found, key=lambda layer: layer.error).layer == "hard"
    assert all(layer.saved == 64 * 64 * 3 - 64 * 4 for layer in found)
    assert all(torch.equal(value, before[name]) for name, value in denoiser.state_dict().items())


@pytest.mark.parametrize("budget", [0.5, 0.02, 0.006])
def test_what_is_chosen_stays_within_the_budget(budget: float) -> None:
    denoiser, calls = _Denoiser(), _calls()
    expected = [denoiser(*args)[0] for args, _ in calls]
    choice = choose(denoiser, calls, budget, "int8-weights")
    assert choice.error <= budget
    layers, *_ = replace_layers(denoiser, "int8-weights", exclude=choice.excluded)
    assert len(layers) == 3 - len(choice.excluded)
    missed = sum(float((denoiser(*a)[0] - e).detach().pow(2).sum()) for (a, _), e in zip(calls, expected, strict=True))
    size = sum(float(e.detach().pow(2).sum()) for e in expected)
    assert (missed / size) ** 0.5 == pytest.approx(choice.error, rel=1e-3)


def test_a_budget_that_no_layer_keeps_is_refused() -> None:
    with pytest.raises(BackendError, match="ask for a larger one"):
        choose(_Denoiser(), _calls(), 1e-9, "int8-weights")


def test_what_is_excluded_by_the_beginning_of_its_name_stays() -> None:
    net = nn.Sequential()
    net.add_module("block", nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64)))
    net.add_module("blocked", nn.Linear(64, 64))
    layers, *_ = replace_layers(net, "int8-weights", exclude=["block"])
    assert len(layers) == 1
    assert isinstance(net.get_submodule("blocked"), NarrowLinear)
