"""What stands before TensorRT's own part runs here; that part runs by `make test-tensorrt` on a machine with a GPU."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from diffopt.backends.base import Axis, BackendError, EngineKey, EngineOptions, Part
from diffopt.backends.engine_store import store_engine
from diffopt.backends.onnx_export import MODEL
from diffopt.backends.tensorrt import REQUEST, PreparingTensorRt, TensorRtBuilder, finish_folder, profile

HAS_LIBRARY = importlib.util.find_spec("tensorrt") is not None


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Conv2d(4, 8, 3, padding=1), torch.nn.GroupNorm(2, 8), torch.nn.SiLU())

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.net(x),)


def part(device: str = "cpu") -> Part:
    torch.manual_seed(0)
    axes = {0: Axis("batch", 1, 2, 4), 2: Axis("height", 4, 8, 16)}
    return Part("net", Net().eval().to(device), (torch.randn(2, 4, 8, 6, device=device),), ("x",), (True,), (axes,))


def test_a_profile_holds_the_least_the_usual_and_the_greatest_shape() -> None:
    assert profile(part()) == {"x": [[1, 4, 4, 6], [2, 4, 8, 6], [4, 4, 16, 6]]}


@pytest.mark.parametrize("precision", ["f32", "f16", "bf16"])
def test_a_prepared_folder_holds_a_typed_graph_near_to_torch(tmp_path: Path, precision: str) -> None:
    import onnx

    facts = PreparingTensorRt().build(part(), tmp_path, EngineOptions(precision))
    assert float(str(facts["relative_l2_error"])) < (1e-5 if precision == "f32" else 2e-2)
    assert len(facts["checks"]) == 3  # type: ignore[arg-type]
    model = onnx.load(tmp_path / MODEL)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    names = [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert names == ["batch", 4, "height", 6]
    assert json.loads((tmp_path / REQUEST).read_text())["refit"]


def test_a_prepared_engine_is_no_built_one(tmp_path: Path) -> None:
    key = EngineKey("tensorrt", "w", [], [], {}, {}, "gpu")
    folder = tmp_path / "net"
    store_engine(folder, key, lambda f: PreparingTensorRt().build(part(), f, EngineOptions("f16")), replace=False)
    if not HAS_LIBRARY:
        with pytest.raises(BackendError, match="prepared, but not built"):
            TensorRtBuilder().load(folder, EngineOptions("f16"))


def test_finishing_what_was_not_prepared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="holds no prepared engine"):
        finish_folder(tmp_path)


@pytest.mark.skipif(HAS_LIBRARY, reason="TensorRT is installed here")
def test_without_the_library_the_builder_says_what_to_install() -> None:
    assert "pip install" in str(TensorRtBuilder().available())


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_LIBRARY, reason="TensorRT is not installed")
@pytest.mark.parametrize("precision", ["f32", "f16", "bf16"])
def test_a_plan_computes_what_torch_does(tmp_path: Path, precision: str) -> None:
    folder = tmp_path / "net"
    key = EngineKey("tensorrt", "w", [], [], {}, {}, "gpu")
    store_engine(folder, key, lambda f: PreparingTensorRt().build(part(), f, EngineOptions(precision)), replace=False)
    assert finish_folder(tmp_path) == ["net"]
    run, on_gpu = TensorRtBuilder().load(folder, EngineOptions(precision)), part("cuda")
    for batch, height in ((1, 4), (2, 8), (4, 16), (2, 8)):
        x = torch.randn(batch, 4, height, 6, device="cuda")
        with torch.no_grad():
            (expected,) = on_gpu.module(x)
        (found,) = run((x,))
        assert (found - expected).norm() / expected.norm() < (1e-3 if precision == "f32" else 5e-2)
    with pytest.raises(BackendError, match="not built for inputs"):
        run((torch.randn(5, 4, 8, 6, device="cuda"),))
