from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from diffopt.backends.aotinductor import MODEL, AotInductorBuilder
from diffopt.backends.base import BackendError, EngineOptions, Part

NET = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.SiLU(), torch.nn.Conv2d(8, 2, 1)).eval()


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = NET

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.net(x),)


PART = Part("net", Net().eval(), (torch.randn(2, 3, 8, 8),), ("x",), (True,))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engine")
    facts = AotInductorBuilder().build(PART, folder, EngineOptions())
    assert float(str(facts["relative_l2_error"])) < 1e-5
    return folder


@pytest.mark.slow
def test_an_engine_takes_any_batch(built: Path) -> None:
    run = AotInductorBuilder().load(built, EngineOptions())
    for batch in (1, 2, 5):
        x = torch.randn(batch, 3, 8, 8)
        with torch.no_grad():
            assert torch.allclose(run((x,))[0], NET(x), atol=1e-5)


@pytest.mark.slow
def test_an_engine_loads_where_there_is_no_compiler(built: Path) -> None:
    code = f"""
import sys, torch
from pathlib import Path
from diffopt.backends.aotinductor import AotInductorBuilder
from diffopt.backends.base import EngineOptions
run = AotInductorBuilder().load(Path({str(built)!r}), EngineOptions())
print(tuple(run((torch.zeros(3, 3, 8, 8),))[0].shape), "torch._inductor" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], env={"PATH": ""}, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "(3, 2, 8, 8) False", done.stderr


@pytest.mark.slow
def test_a_damaged_package_is_an_error_of_one_line(built: Path, tmp_path: Path) -> None:
    (tmp_path / MODEL).write_bytes((built / MODEL).read_bytes()[:1000])
    with pytest.raises(BackendError, match="cannot be loaded"):
        AotInductorBuilder().load(tmp_path, EngineOptions())


def test_building_without_a_compiler_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BackendError, match=r"install g\+\+"):
        AotInductorBuilder().build(PART, tmp_path, EngineOptions())
