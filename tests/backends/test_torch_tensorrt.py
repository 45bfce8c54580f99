"""What stands before Torch-TensorRT's own part; that part was not run."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from diffopt.backends.base import Axis, BackendError, EngineOptions, Part, builder
from diffopt.backends.torch_tensorrt import TorchTensorRtBuilder, inputs_of, plan_of


class Net(torch.nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor]:
        return (x * y,)


PART = Part(
    "net", Net().eval(), (torch.ones(2, 4), torch.ones(4)), ("x", "y"), (True, False), ({0: Axis("batch", 1, 2, 4)}, {})
)


class Input:
    def __init__(self, **given: Any) -> None:
        self.given = given


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A stand-in for Torch-TensorRT whose functions have the signatures of 2.14, as far as they are used."""

    def convert_exported_program_to_serialized_trt_engine(
        exported_program: Any,
        inputs: Any = None,
        *,
        arg_inputs: Any = None,
        disable_tf32: bool = False,
        require_full_compilation: bool = False,
        immutable_weights: bool = True,
        **settings: Any,
    ) -> bytes:
        assert not settings, "unknown settings are only warned of"
        if require_full_compilation and len(arg_inputs) == 1:
            raise RuntimeError("Not all operators are supported\nmore")
        return b"plan"

    made, dynamo = ModuleType("torch_tensorrt"), ModuleType("torch_tensorrt.dynamo")
    made.Input = Input  # type: ignore[attr-defined]
    dynamo.convert_exported_program_to_serialized_trt_engine = (  # type: ignore[attr-defined]
        convert_exported_program_to_serialized_trt_engine
    )
    monkeypatch.setitem(sys.modules, "torch_tensorrt", made)
    monkeypatch.setitem(sys.modules, "torch_tensorrt.dynamo", dynamo)
    return made


def test_a_missing_package_is_one_line_that_says_what_to_install() -> None:
    with pytest.raises(BackendError, match=r"torch-tensorrt: the package torch-tensorrt is not installed; pip install"):
        builder("torch-tensorrt", EngineOptions(), "cuda")


def test_inputs_carry_the_ranges_of_what_is_open(package: ModuleType) -> None:
    x, y = (given.given for given in inputs_of(PART))
    shapes = {"min_shape": (1, 4), "opt_shape": (2, 4), "max_shape": (4, 4)}
    assert x == {"dtype": torch.float32, "name": "x", **shapes}
    assert y == {"dtype": torch.float32, "name": "y", "shape": (4,)}


def test_a_plan_is_asked_for_whole_and_a_refusal_is_one_line(package: ModuleType) -> None:
    program: Any = PART.module  # the stand-in does not look into it
    assert plan_of(program, PART) == b"plan"
    alone = Part("alone", PART.module, PART.inputs[:1], ("x",), (True,))
    with pytest.raises(BackendError, match=r"^torch-tensorrt cannot compile alone: Not all operators are supported$"):
        plan_of(program, alone)


def test_a_whole_pipeline_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="components alone"):
        TorchTensorRtBuilder().build_program(None, tmp_path, EngineOptions())  # type: ignore[arg-type]
