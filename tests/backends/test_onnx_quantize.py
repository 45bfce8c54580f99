from __future__ import annotations

from pathlib import Path

import pytest
import torch

from diffopt.backends.base import BackendError, EngineOptions, Part
from diffopt.backends.onnxruntime import MODEL, OnnxRuntimeBuilder


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv2d(4, 16, 3, padding=1)
        self.out = torch.nn.Linear(16, 8)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.out(torch.relu(self.conv(x)).flatten(2).transpose(1, 2)),)


CALLS = tuple((torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(i)),) for i in range(4))


def part(calls: tuple[tuple[torch.Tensor, ...], ...] = ()) -> Part:
    return Part("net", Net().eval(), CALLS[0], ("x",), (True,), calls=calls)


def kinds(folder: Path) -> set[str]:
    import onnx

    return {node.op_type for node in onnx.load(folder / MODEL).graph.node}


def test_static_quantization_writes_pairs_with_recorded_ranges(tmp_path: Path) -> None:
    facts = OnnxRuntimeBuilder().build(part(CALLS), tmp_path, EngineOptions("int8"))
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds(tmp_path)
    assert 0 < float(str(facts["relative_l2_error"])) < 0.05


def test_dynamic_quantization_needs_no_calls(tmp_path: Path) -> None:
    facts = OnnxRuntimeBuilder().build(part(), tmp_path, EngineOptions("int8-dynamic"))
    assert "DynamicQuantizeLinear" in kinds(tmp_path)
    assert 0 < float(str(facts["relative_l2_error"])) < 0.05


def test_static_quantization_without_calls_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="needs recorded calls"):
        OnnxRuntimeBuilder().build(part(), tmp_path, EngineOptions("int8"))
