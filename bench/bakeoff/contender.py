"""One thing that is raced, in a process of its own: it builds, loads, runs and checks when it is asked."""

from __future__ import annotations

import json
import os
import time
from functools import cache
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffopt.backends.base import Builder, Part, Run, Tensors

EAGER, INDUCTOR = "eager", "inductor"
LIBRARIES = ("torch", "diffusers", "openvino", "onnxruntime")
BATCHES = (1, 2, 3)
"""Pictures a call at which errors are measured; guidance doubles them for the denoiser. Latency is measured at the first."""
Asked = dict[str, Any]


@cache
def model_parts(name: str) -> tuple[Part, ...]:
    """Return the components of a built-in model's pipeline, open in the batch."""
    from diffopt.backends.base import Axis
    from diffopt.backends.component_parts import Workload, component_parts
    from diffopt.bench.fit import load_emitted
    from diffopt.bench.models import BUILTINS, describe
    from diffopt.ir.description import build_module

    pipe = load_emitted(build_module(describe(BUILTINS[name])))
    return tuple(component_parts(pipe, Workload(Axis("batch", BATCHES[0], BATCHES[0], BATCHES[-1]))))


def versions() -> dict[str, str]:
    """Return the versions that engines and figures depend on."""
    return {name: version(name) for name in LIBRARIES}


def answer(name: str, component: str, backend: str, precision: str, folder: Path, pipe: Connection) -> None:
    """Answer questions until the process is killed: `build`, `load`, `run`, `check`, `flops`, `ceilings`.

    name: of a built-in model. component: of `model_parts`; empty to answer `components` alone. folder: of the engine.
    A backend that cannot do what it is asked answers `failed` and why.
    """
    import torch

    from diffopt.backends.base import BackendError
    from diffopt.backends.numeric_check import resized
    from diffopt.bench.matmul_ceiling import count_flops, matmul_ceilings

    run: Run | None = None
    while True:
        asked, found = pipe.recv_bytes().decode(), Asked()
        try:
            parts = model_parts(name)
            if asked == "components":
                pipe.send_bytes(json.dumps({"components": [part.name for part in parts]}).encode())
                continue
            part = next(part for part in parts if part.name == component)
            usual = resized(part, {axis.name: axis.usual for axes in part.axes() for axis in axes.values()})
            with torch.no_grad():
                if asked == "build":
                    found = _build(name, part, usual, backend, precision, folder)
                elif asked == "load":
                    run, found = _loaded(part, usual, backend, precision, folder)
                elif asked == "run" and run is not None:
                    started = time.perf_counter()
                    run(usual)
                    found = {"seconds": time.perf_counter() - started}
                elif asked == "check" and run is not None:
                    found = _checked(part, run)
                elif asked == "flops":
                    found = {"gflop": count_flops(lambda: part.module(*usual)) / 1e9}  # noqa: B023 - run at once
                elif asked == "ceilings":
                    found = dict(matmul_ceilings())
        except BackendError as error:
            found = {"failed": str(error)[:300]}
        pipe.send_bytes(json.dumps(found).encode())


def _build(name: str, part: Part, usual: Tensors, backend: str, precision: str, folder: Path) -> Asked:
    """Write the engine, and how long that took; one that is there already is kept."""
    from diffopt.backends.base import EngineKey, EngineOptions, builder
    from diffopt.backends.engine_store import read_manifest, store_engine

    started = time.perf_counter()
    options = EngineOptions(precision)
    key = EngineKey(backend, name, [], [part.name, *BATCHES], options.to_json(), versions(), "here")

    def make(scratch: Path) -> Asked:
        if backend == INDUCTOR:
            _inductor(part)(usual)  # into the compiler's cache
            return {"total_build_s": round(time.perf_counter() - started, 2)}
        facts = dict(builder(backend, options, "cpu").build(part, scratch, options))
        return {**facts, "total_build_s": round(time.perf_counter() - started, 2)}

    built = store_engine(folder, key, make, replace=True)
    return {"build_s": read_manifest(folder)["facts"]["total_build_s"], "built": built}


def _loaded(part: Part, usual: Tensors, backend: str, precision: str, folder: Path) -> tuple[Run, Asked]:
    from diffopt.backends.base import BackendError, EngineOptions, builder
    from diffopt.backends.engine_store import check_engine, read_manifest

    if backend == EAGER:
        return lambda inputs: part.module(*inputs), {}
    if check_engine(folder) is not None:
        raise BackendError("not built, or damaged", "--build makes it")
    facts, started = read_manifest(folder)["facts"], time.perf_counter()
    if backend == INDUCTOR:
        run = _inductor(part)
    else:
        chosen: Builder = builder(backend, EngineOptions(precision), "cpu")
        run = chosen.load(folder, EngineOptions(precision))
    run(usual)
    first = time.perf_counter() - started
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if backend != INDUCTOR else 0
    return run, {"build_s": facts["total_build_s"], "first_call_s": round(first, 3), "bytes": size}


def _checked(part: Part, run: Run) -> Asked:
    from diffopt.backends.numeric_check import compare_sizes
    from diffopt.bench.memory import peak_bytes

    peak = peak_bytes(os.getpid())
    axes = {axis.name: axis for opened in part.axes() for axis in opened.values()}
    sizes = [{name: axis.usual * batch for name, axis in axes.items()} for batch in BATCHES]
    checks = [check for _, check in compare_sizes(run, part, sizes)]
    return {
        "max_error": [largest for largest, _ in checks],
        "relative_l2_error": [relative for _, relative in checks],
        "peak_bytes": peak,
    }


def _inductor(part: Part) -> Run:
    import torch

    made = torch.compile(part.module)

    def run(inputs: Tensors) -> Tensors:
        with torch.no_grad():
            return made(*inputs)  # type: ignore[no-any-return]

    return run
