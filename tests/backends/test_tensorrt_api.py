"""Each call that `tensorrt_api` makes, against the signatures of the real bindings, of which the libraries are stubbed."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
MODULE = ROOT / "backends" / "tensorrt_api.py"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("tensorrt_bindings") is None, reason="tensorrt-cu13-bindings is not installed"
    ),
    pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler to stub TensorRT's libraries with"),
]


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Type stubs of the bindings, and of torch as far as it is none of this test's business."""
    spec = importlib.util.spec_from_file_location("tensorrt_stubs", HERE / "tensorrt_stubs.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = tmp_path_factory.mktemp("stubs")
    code = folder / "stub.c"
    code.write_text(module.libraries(folder))
    for name in module.LIBRARIES:
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-o", folder / name, f"-Wl,-soname,{name}", code],
            check=True,
            capture_output=True,
        )
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder)}
    done = subprocess.run(
        [sys.executable, HERE / "tensorrt_stubs.py", folder],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("11.")
    anything = "from typing import Any\ndef __getattr__(name: str) -> Any: ...\n"
    (folder / "torch.pyi").write_text(anything)
    (folder / "diffopt" / "backends").mkdir(parents=True)
    for package in ("diffopt", "diffopt/backends"):
        (folder / package / "__init__.pyi").touch()
    base = "from typing import Any\nTensors = tuple[Any, ...]\nclass BackendError(Exception):\n"
    base += '    def __init__(self, message: str, hint: str = "") -> None: ...\n'
    (folder / "diffopt" / "backends" / "base.pyi").write_text(base)
    return folder


def checked(stubs: Path, module: Path) -> str:
    """Return what mypy says of a module with these stubs."""
    command = [
        sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={stubs / 'cache'}", "--no-error-summary", "--no-warn-unused-ignores", str(module),
    ]  # fmt: skip
    environment = {**os.environ, "MYPYPATH": str(stubs)}
    done = subprocess.run(command, cwd=module.parent, env=environment, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_each_call_is_one_that_the_bindings_have(stubs: Path, tmp_path: Path) -> None:
    (tmp_path / "unchanged.py").write_text(MODULE.read_text())
    assert checked(stubs, tmp_path / "unchanged.py") == ""


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("create_network(flags=", "create_network(flag=", "Unexpected keyword argument"),
        ("execute_async_v3(stream_handle=", "execute_async_v2(stream_handle=", "has no attribute"),
        ("BuilderFlag.REFIT", "BuilderFlag.FP16", "has no attribute"),
        ("memory=value.data_ptr()", 'memory="all"', "incompatible type"),
    ],
)
def test_a_call_that_they_do_not_have_is_found(stubs: Path, tmp_path: Path, right: str, wrong: str, said: str) -> None:
    text = MODULE.read_text()
    assert right in text
    (tmp_path / "changed.py").write_text(text.replace(right, wrong))
    assert said in checked(stubs, tmp_path / "changed.py")
