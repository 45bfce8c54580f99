"""Backends in environments of their own, for packages that cannot stand beside ours: another process, shared memory.

`diffopt backends add NAME` makes the environment. The engine is built here, as an ONNX file, and run there.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

import numpy

from diffopt.backends.base import BackendError, Run, Tensors

SERVER = Path(__file__).with_name("isolated_server.py")


@dataclass(frozen=True)
class Environment:
    """What an environment holds, and how its runtime is asked."""

    packages: tuple[str, ...]
    providers: tuple[str, ...]
    about: str


ENVIRONMENTS = {
    "onnxruntime-openvino": Environment(
        ("onnxruntime-openvino", "numpy"),
        ("OpenVINOExecutionProvider", "CPUExecutionProvider"),
        "ONNX Runtime with OpenVINO's provider; its package replaces onnxruntime",
    ),
    "onnxruntime-gpu": Environment(
        ("onnxruntime-gpu", "numpy"),
        ("CUDAExecutionProvider", "CPUExecutionProvider"),
        "ONNX Runtime for CUDA, beside a CPU build of torch",
    ),
    "onnxruntime-alone": Environment(
        ("onnxruntime", "numpy"), ("CPUExecutionProvider",), "ONNX Runtime in a process without torch"
    ),
}
"""Environments by name."""


def add_environment(name: str, home: Path) -> Path:
    """Make the environment of that name below `home`, whole or not at all; return its Python.

    Raises BackendError if there is no such environment, or it cannot be installed.
    """
    return make_environment(home / name, _known(name).packages)


def make_environment(folder: Path, packages: Sequence[str]) -> Path:
    """Make a virtual environment with these packages, whole or not at all; return its Python.

    packages: arguments of `pip install`.
    Raises BackendError if it cannot be installed, or something else is in its place.
    """
    python = folder / "bin" / "python"
    if (folder / "done").exists():
        return python
    begun = (folder / "pyvenv.cfg").is_file() or (folder.is_dir() and not any(folder.iterdir()))
    if os.path.lexists(folder) and not begun:
        raise BackendError(f"{folder} is there and is no environment", "give another --home, or move it away")
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["nothing said"])[-1]
            raise BackendError(
                f"{folder.name} cannot be installed: {last}", "look at the network and at the disk's room"
            )
    (folder / "done").touch()
    return python


def python_of(name: str, home: Path) -> Path:
    """Return the Python of an environment. Raises BackendError if it is not there."""
    _known(name)
    if not (home / name / "done").exists():
        raise BackendError(f"there is no environment {name}", f"diffopt backends add {name}")
    return home / name / "bin" / "python"


def _known(name: str) -> Environment:
    if name not in ENVIRONMENTS:
        raise BackendError(f"no environment is called {name!r}", f"there are {', '.join(ENVIRONMENTS)}")
    return ENVIRONMENTS[name]


class IsolatedEngine:
    """One ONNX file in another process, which ends with this object. Not to be called by two threads at once.

    Blocks of shared memory stay as long as the engine, and grow where a call needs more.
    Raises BackendError if the process does not start, or ends.
    """

    def __init__(self, python: Path, model: Path, providers: tuple[str, ...]) -> None:
        self._process = subprocess.Popen(
            [str(python), "-I", str(SERVER), str(model), ",".join(providers)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._inputs: list[shared_memory.SharedMemory] = []
        self._outputs: list[shared_memory.SharedMemory] = []
        weakref.finalize(self, _end, self._process, self._inputs, self._outputs)
        self.about = self._answer()

    def run(self, inputs: Tensors) -> Tensors:
        import torch

        arrays = [value.detach().contiguous().numpy() for value in inputs]
        rows = [self._put(index, array) for index, array in enumerate(arrays)]
        answer = self._ask(rows)
        if any("name" not in row for row in answer["outputs"]):
            for index, row in enumerate(answer["outputs"]):
                _grown(self._outputs, index, row["bytes"])
            answer = self._ask(rows)
        return tuple(torch.from_numpy(self._read(index, row)) for index, row in enumerate(answer["outputs"]))

    def _ask(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        request = {"inputs": rows, "out": [block.name for block in self._outputs]}
        with contextlib.suppress(BrokenPipeError):  # the answer says why
            if self._process.stdin is not None:
                self._process.stdin.write(json.dumps(request) + "\n")
                self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout is not None else ""
        if not line:
            said = self._process.stderr.read() if self._process.stderr is not None else ""
            last = (said.strip().splitlines() or ["nothing said"])[-1]
            raise BackendError(f"the engine's process has ended: {last}")
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            raise BackendError(f"the engine's process cannot run this: {found['error']}")
        return found

    def _put(self, index: int, array: numpy.ndarray[Any, Any]) -> dict[str, Any]:
        block = _grown(self._inputs, index, array.nbytes)
        numpy.ndarray(array.shape, array.dtype, buffer=block.buf)[...] = array
        return {"name": block.name, "shape": list(array.shape), "dtype": str(array.dtype)}

    def _read(self, index: int, row: dict[str, Any]) -> numpy.ndarray[Any, Any]:
        view: numpy.ndarray[Any, Any] = numpy.ndarray(row["shape"], row["dtype"], buffer=self._outputs[index].buf)
        return view.copy()


def load_isolated(name: str, home: Path, model: Path) -> Run:
    """Return what runs an ONNX file in the environment of that name. Raises as `IsolatedEngine`."""
    return IsolatedEngine(python_of(name, home), model, ENVIRONMENTS[name].providers).run


def _grown(blocks: list[shared_memory.SharedMemory], index: int, size: int) -> shared_memory.SharedMemory:
    while len(blocks) <= index:
        blocks.append(shared_memory.SharedMemory(create=True, size=max(1, size)))
    if blocks[index].size < size:
        old, blocks[index] = blocks[index], shared_memory.SharedMemory(create=True, size=size)
        old.close()
        old.unlink()
    return blocks[index]


def _end(process: subprocess.Popen[str], *blocks: list[shared_memory.SharedMemory]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
    for block in (one for given in blocks for one in given):
        block.close()
        with contextlib.suppress(FileNotFoundError):
            block.unlink()
