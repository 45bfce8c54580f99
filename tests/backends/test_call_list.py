from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from diffopt.backends.base import BackendError, Program
from diffopt.backends.call_list import LIST, load_calls, write_calls
from diffopt.backends.runtime.capture import Capture
from diffopt.backends.runtime.leaf import Leaf


class Double(torch.nn.Module):
    def forward(self, x: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x * 2 + t, x.mean()


@pytest.fixture(scope="module")
def program() -> Program:
    """Three calls of one part, with arithmetic, a constant, a concatenation and another type between them."""
    leaf, capture = Leaf("twice", Double(), ("x", "t"), (True, False)), Capture()
    with torch.no_grad(), capture:
        x = capture.input("x", torch.arange(6.0).view(2, 3))
        for step in range(3):
            first, mean = capture.call(leaf, torch.cat([x, x]), torch.tensor(float(step)))
            one, other = first.chunk(2)
            x = one - 0.5 * other + mean + torch.tensor([1.0, 2.0, 3.0])
        out = x.to(torch.float64).to(torch.float32)
    return capture.program(out)


def test_a_program_runs_from_its_list_as_it_does_in_torch(program: Program, tmp_path: Path) -> None:
    assert write_calls(program, tmp_path) > 10
    run = load_calls(tmp_path, {"twice": lambda inputs: Double()(*inputs)})
    for given in (program.inputs, (torch.randn(2, 3),)):
        assert torch.equal(run(given)[0], program.graph(*given)[0])


def test_the_list_can_be_run_again_and_again(program: Program, tmp_path: Path) -> None:
    write_calls(program, tmp_path)
    run = load_calls(tmp_path, {"twice": lambda inputs: Double()(*inputs)})
    assert torch.equal(run(program.inputs)[0], run(program.inputs)[0])


@pytest.mark.parametrize("operator", ["os.system", "prims.add.default", "aten"])
def test_a_list_that_names_no_operator_of_torch_is_refused(program: Program, tmp_path: Path, operator: str) -> None:
    write_calls(program, tmp_path)
    found: dict[str, Any] = json.loads((tmp_path / LIST).read_text())
    next(step for step in found["steps"] if "operator" in step)["operator"] = operator
    (tmp_path / LIST).write_text(json.dumps(found))
    with pytest.raises((BackendError, AttributeError)):
        load_calls(tmp_path, {"twice": lambda inputs: inputs})


def test_a_list_of_another_format_is_refused(program: Program, tmp_path: Path) -> None:
    write_calls(program, tmp_path)
    found = json.loads((tmp_path / LIST).read_text())
    (tmp_path / LIST).write_text(json.dumps({**found, "format": 99}))
    with pytest.raises(BackendError, match="format 99"):
        load_calls(tmp_path, {})
