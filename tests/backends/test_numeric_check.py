from __future__ import annotations

import pytest
import torch

from diffopt.backends.base import Axis, BackendError, Part
from diffopt.backends.numeric_check import compare, resized, sizes_to_check


class Sum(torch.nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor]:
        return (x.sum(-1) + y,)


BATCH, WIDTH = Axis("batch", 1, 2, 4), Axis("width", 3, 5, 9)
PART = Part(
    "sum", Sum(), (torch.arange(10.0).view(2, 5), torch.zeros(1)), ("x", "y"), (True, False), ({0: BATCH, 1: WIDTH}, {})
)


def test_inputs_are_cut_or_repeated_to_a_size() -> None:
    x, y = resized(PART, {"batch": 3, "width": 2})
    assert torch.equal(x, torch.tensor([[0.0, 1.0], [5.0, 6.0], [0.0, 1.0]]))
    assert y.shape == (1,)


def test_a_part_with_named_dimensions_is_checked_at_its_corners() -> None:
    assert sizes_to_check(PART) == [{"batch": 2, "width": 5}, {"batch": 1, "width": 3}, {"batch": 4, "width": 9}]
    found = compare(lambda inputs: PART.module(*inputs), PART)
    assert found["max_error"] == 0
    assert len(found["checks"]) == 3  # type: ignore[arg-type]


def test_an_engine_that_is_right_at_one_size_only_is_found_out() -> None:
    def fixed(inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (inputs[0][:, :5].sum(-1) + inputs[1],)

    assert float(str(compare(fixed, PART)["relative_l2_error"])) > 0.1


def test_results_that_are_no_numbers_or_of_other_shapes_are_refused() -> None:
    with pytest.raises(BackendError, match="not a number"):
        compare(lambda inputs: (PART.module(*inputs)[0] / 0.0 * 0.0,), PART)
    with pytest.raises(BackendError, match="returns"):
        compare(lambda inputs: (inputs[0],), PART)
