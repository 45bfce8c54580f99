from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from diffopt.backends.onnx_autocast import autocast
from diffopt.backends.onnx_export import convert, save
from diffopt.backends.onnxruntime import MODEL, OnnxRuntimeEngine
from diffopt.backends.tensorrt import TYPED_OPSET


class Net(torch.nn.Module):
    """A convolution, a norm, an activation, attention-like products and a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(4, 8, 3, padding=1)
        self.norm = torch.nn.GroupNorm(2, 8)
        self.out = torch.nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        hidden = torch.nn.functional.silu(self.norm(self.conv(x)))
        rows = hidden.flatten(2).transpose(1, 2)
        weights = torch.softmax(rows @ rows.transpose(1, 2), -1)
        return (self.out(weights @ rows + rows),)


@pytest.fixture(scope="module")
def made() -> tuple[Any, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    net, x = Net().eval(), torch.randn(2, 4, 6, 6)
    with torch.no_grad():
        return convert(net, (x,), ("x",), opset=TYPED_OPSET), x, net(x)[0]


def by_type(model: Any) -> dict[str, set[int]]:
    """Return the element types that operations of each kind give out."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    types = {v.name: v.type.tensor_type.elem_type for v in [*graph.value_info, *graph.output]}
    found: dict[str, set[int]] = {}
    for node in graph.node:
        found.setdefault(node.op_type, set()).update(types[name] for name in node.output if name in types)
    return found


@pytest.mark.parametrize("precision", ["f16", "bf16"])
def test_products_compute_in_the_lower_type_and_norms_do_not(made: Any, precision: str) -> None:
    from onnx import TensorProto

    low = {"f16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}[precision]
    model, counts = autocast(made[0], precision)
    found = by_type(model)  # infers types strictly: every operation gets one type only
    assert found["Conv"] == found["MatMul"] | found.get("Gemm", set()) == {low}
    assert found["Softmax"] == {TensorProto.FLOAT}
    assert {v.type.tensor_type.elem_type for v in [*model.graph.input, *model.graph.output]} == {TensorProto.FLOAT}
    assert counts["lower"] >= 4


def test_the_lowered_graph_computes_nearly_the_same(made: Any, tmp_path: Path) -> None:
    model, x, expected = made
    lowered, _ = autocast(model, "f16")
    save(lowered, tmp_path)
    (found,) = OnnxRuntimeEngine(tmp_path / MODEL).run((x,))
    assert 0 < (found - expected).norm() / expected.norm() < 1e-2


def test_weights_are_stored_once_in_the_type_they_are_used_in(made: Any) -> None:
    before, after = made[0], autocast(made[0], "bf16")[0]
    assert len(after.graph.initializer) <= len(before.graph.initializer) + 1
    assert after.ByteSize() < before.ByteSize() + 2000


def test_the_model_given_stays_as_it_is(made: Any) -> None:
    text = made[0].SerializeToString()
    autocast(made[0], "f16")
    assert made[0].SerializeToString() == text
