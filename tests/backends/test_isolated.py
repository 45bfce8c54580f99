from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from diffopt.backends.base import Axes, Axis, BackendError
from diffopt.backends.isolated import IsolatedEngine, add_environment, python_of
from diffopt.backends.onnx_export import MODEL, convert, save


class Net(torch.nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x * 2 + y, x.sum(-1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    axes: tuple[Axes, ...] = ({0: Axis("batch", 1, 2, 4)}, {})
    save(convert(Net(), (torch.ones(2, 3), torch.ones(3)), ("x", "y"), axes), folder)
    return folder / MODEL


@pytest.fixture
def engine(model: Path) -> IsolatedEngine:
    """The engine in another process of this same environment: what is tested is the way there and back."""
    return IsolatedEngine(Path(sys.executable), model, ("CPUExecutionProvider",))


def test_another_process_computes_what_torch_does_at_sizes_that_grow_and_shrink(engine: IsolatedEngine) -> None:
    for batch in (1, 4, 2, 4):
        x, y = torch.randn(batch, 3), torch.randn(3)
        for found, expected in zip(engine.run((x, y)), Net()(x, y), strict=True):
            assert torch.allclose(found, expected, atol=1e-6)


def test_results_are_the_callers_own(engine: IsolatedEngine) -> None:
    first = engine.run((torch.ones(2, 3), torch.ones(3)))[0]
    engine.run((torch.zeros(2, 3), torch.zeros(3)))
    assert torch.equal(first, torch.full((2, 3), 3.0))


def test_what_the_engine_cannot_take_is_said_and_the_next_call_works(engine: IsolatedEngine) -> None:
    with pytest.raises(BackendError, match="cannot run this"):
        engine.run((torch.ones(2, 5), torch.ones(3)))
    assert engine.run((torch.ones(2, 3), torch.ones(3)))[1].tolist() == [3.0, 3.0]


def test_a_process_that_ends_is_an_error(engine: IsolatedEngine) -> None:
    engine._process.kill()
    engine._process.wait()
    with pytest.raises(BackendError, match="has ended"):
        engine.run((torch.ones(2, 3), torch.ones(3)))


def test_a_file_that_cannot_be_loaded_is_an_error(tmp_path: Path) -> None:
    (tmp_path / MODEL).write_bytes(b"no model")
    with pytest.raises(BackendError, match="has ended"):
        IsolatedEngine(Path(sys.executable), tmp_path / MODEL, ("CPUExecutionProvider",))


def test_an_environment_that_is_not_there_says_how_to_add_it(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="diffopt backends add onnxruntime-openvino"):
        python_of("onnxruntime-openvino", tmp_path)
    with pytest.raises(BackendError, match="no environment is called"):
        add_environment("tensorflow", tmp_path)


def test_an_environment_is_never_made_over_a_folder_of_the_users(tmp_path: Path) -> None:
    mine = tmp_path / "onnxruntime-openvino" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(BackendError, match="is no environment"):
        add_environment("onnxruntime-openvino", tmp_path)
    assert mine.read_text() == "mine"
