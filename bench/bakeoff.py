"""Every backend against eager torch, component by component: `python -m diffopt.bench.bakeoff`, or `make bakeoff`.

`--build` makes the engines and may share the machine; without it they are measured, which wants the machine alone. Each engine
is loaded and raced in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sys
import time
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffopt.bench.models.shapes import SHAPES

if TYPE_CHECKING:
    from diffopt.backends.base import Builder, Part, Run

CONTENDERS = (
    ("inductor", "f32"), ("aotinductor", "f32"), ("aotinductor", "bf16"), ("onnxruntime", "f32"),
    ("openvino", "f32"), ("openvino", "bf16"),
)  # fmt: skip
LIBRARIES = ("torch", "diffusers", "openvino", "onnxruntime")
BATCHES = (1, 2, 3)
"""Pictures a call at which errors are measured; guidance doubles them for the denoiser. Latency is measured at the first."""
PAIRS = 40
SECONDS = 3.0
"""The most pairs of a race, and the most time, whichever is reached first; ten pairs at least."""


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m diffopt.bench.bakeoff", description=__doc__)
    parser.add_argument("--build", action="store_true", help="make the engines, and measure nothing")
    parser.add_argument("--engines", type=Path, default=Path("out/bakeoff"))
    parser.add_argument("--results", type=Path, default=Path("bench/results/bakeoff-cpu.json"))
    parser.add_argument("--component", action="append", default=[])
    parser.add_argument("--backend", action="append", default=[])
    parser.add_argument(
        "--page", type=Path, help="write the table from the results into this page, and do nothing else"
    )
    options = parser.parse_args()
    if options.page:
        _write_page(options.page, json.loads(options.results.read_text()))
        return 0
    known: dict[str, Any] = json.loads(options.results.read_text()) if options.results.exists() else {}
    rows = {(row["component"], row["backend"], row["precision"]): row for row in known.get("rows", [])}
    machine = _machine()
    for part in _parts():
        for backend, precision in CONTENDERS:
            if (options.component and part.name not in options.component) or (
                options.backend and backend not in options.backend
            ):
                continue
            row = _in_process(part.name, backend, precision, options.engines, options.build)
            print(json.dumps(row), file=sys.stderr, flush=True)
            if options.build:
                continue
            rows[part.name, backend, precision] = row
            found = {"machine": machine, "pairs": PAIRS, "batches": list(BATCHES), "rows": list(rows.values())}
            options.results.write_text(json.dumps(found, indent=1, default=str) + "\n")
    return 0


@cache
def _parts() -> tuple[Part, ...]:
    """Return the components of the built-in model, open in the batch."""
    import torch
    from diffusers import StableDiffusionPipeline

    from diffopt.backends.base import Axis
    from diffopt.backends.component_parts import Workload, component_parts

    pipe = StableDiffusionPipeline.from_pretrained(SHAPES.directory, dtype=torch.float32, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    return tuple(component_parts(pipe, Workload(Axis("batch", BATCHES[0], BATCHES[0], BATCHES[-1]))))


def _in_process(component: str, backend: str, precision: str, engines: Path, build: bool) -> dict[str, Any]:
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(component, backend, precision, engines, build, sender))
    child.start()
    sender.close()
    row: dict[str, Any] = {"component": component, "backend": backend, "precision": precision}
    try:
        row |= json.loads(receiver.recv_bytes())
    except EOFError:
        child.join()
        row["failed"] = f"exit code {child.exitcode}"
    child.join()
    return row


def _child(component: str, backend: str, precision: str, engines: Path, build: bool, sender: Connection) -> None:
    from diffopt.backends.base import BackendError

    part = next(part for part in _parts() if part.name == component)
    try:
        row = _build(part, backend, precision, engines) if build else _measure(part, backend, precision, engines)
    except BackendError as error:
        row = {"failed": str(error)[:300]}
    sender.send_bytes(json.dumps(row).encode())


def _build(part: Part, backend: str, precision: str, engines: Path) -> dict[str, Any]:
    from diffopt.backends.base import EngineKey, EngineOptions, builder
    from diffopt.backends.engine_store import store_engine

    if backend == "inductor":
        return {}
    chosen, options = builder(backend, EngineOptions(precision), "cpu"), EngineOptions(precision)
    versions = {name: version(name) for name in LIBRARIES}
    key = EngineKey(backend, SHAPES.name, [], [part.name, *BATCHES], options.to_json(), versions, "here")
    started = time.perf_counter()

    def make(folder: Path) -> dict[str, Any]:
        facts = dict(chosen.build(part, folder, options))
        return {**facts, "total_build_s": round(time.perf_counter() - started, 2)}

    store_engine(engines / f"{part.name}-{backend}-{precision}", key, make, replace=True)
    return {"build_s": round(time.perf_counter() - started, 2)}


def _measure(part: Part, backend: str, precision: str, engines: Path) -> dict[str, Any]:
    import numpy as np
    import torch

    from diffopt.backends.base import EngineOptions, builder
    from diffopt.backends.engine_store import read_manifest
    from diffopt.backends.numeric_check import compare_sizes, resized
    from diffopt.bench.memory import peak_bytes
    from diffopt.bench.statistics import median, paired_ratio

    folder = engines / f"{part.name}-{backend}-{precision}"
    started = time.perf_counter()
    if backend == "inductor":
        run, facts = _inductor(part), {}
    else:
        chosen: Builder = builder(backend, EngineOptions(precision), "cpu")
        run, facts = chosen.load(folder, EngineOptions(precision)), read_manifest(folder)["facts"]
    usual = resized(part, {axis.name: axis.usual for axes in part.axes() for axis in axes.values()})
    run(usual)
    load_s = time.perf_counter() - started
    times = _race(lambda: part.module(*usual), lambda: run(usual))
    peak = peak_bytes(multiprocessing.current_process().pid or 0)
    axis = next(axis for axes in part.axes() for axis in axes.values())
    checks = compare_sizes(run, part, [{"batch": axis.usual * batch} for batch in BATCHES])
    interval = paired_ratio(*times, rng=np.random.default_rng(0))
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.exists() else 0
    return {
        "ratio": interval.ratio, "lo": interval.lo, "hi": interval.hi, "pairs": interval.pairs,
        "eager_ms": 1e3 * median(times[0]), "engine_ms": 1e3 * median(times[1]), "threads": torch.get_num_threads(),
        "max_error": [check[0] for _, check in checks], "relative_l2_error": [check[1] for _, check in checks],
        "build_s": facts.get("total_build_s", round(load_s, 2)), "first_call_s": round(load_s, 3),
        "bytes": size, "peak_bytes": peak,
    }  # fmt: skip


def _race(eager: Callable[[], Any], engine: Callable[[], Any]) -> tuple[list[float], list[float]]:
    """Time both in pairs, in random order, after both have run warm."""
    import torch

    rng, times = random.Random(0), (list[float](), list[float]())
    with torch.no_grad():
        for _ in range(5):
            eager()
            engine()
        end = time.perf_counter() + SECONDS
        while len(times[0]) < PAIRS and (len(times[0]) < 10 or time.perf_counter() < end):
            for who in rng.sample((0, 1), 2):
                started = time.perf_counter()
                (eager, engine)[who]()
                times[who].append(time.perf_counter() - started)
    return times


def _inductor(part: Part) -> Run:
    import torch

    made = torch.compile(part.module)

    def run(inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        with torch.no_grad():
            return made(*inputs)  # type: ignore[no-any-return]

    return run


def _machine() -> dict[str, Any]:
    from diffopt.bench.device import devices

    return {"devices": devices(), "versions": {name: version(name) for name in LIBRARIES}}


def table(found: dict[str, Any]) -> list[str]:
    """Return the results as lines of a table."""
    lines = [
        (
            "| component | backend | precision | ratio to eager [95 %] | ms | relative L2 error at 1, 2, 3 pictures | largest error "
            "| build | load and first call | size | peak memory |"
        ),
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in found["rows"]:
        head = f"| {row['component']} | {row['backend']} | {row['precision']} | "
        if "failed" in row:
            lines.append(head + f"{row['failed']} | | | | | | | |")
            continue
        errors = " / ".join(f"{value:.0e}" for value in row["relative_l2_error"])
        size = f"{row['bytes'] / 1e6:.1f} MB" if row["bytes"] else ""
        lines.append(
            head
            + f"{row['ratio']:.2f} [{row['lo']:.2f}, {row['hi']:.2f}] | {row['engine_ms']:.2f} (of {row['eager_ms']:.2f}) "
            f"| {errors} | {max(row['max_error']):.0e} | {row['build_s']:.1f} s | {row['first_call_s']:.2f} s | {size} "
            f"| {row['peak_bytes'] / 1e9:.2f} GB |"
        )
    return lines


def _write_page(page: Path, found: dict[str, Any]) -> None:
    """Put the table between the page's marks."""
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition("<!-- bakeoff -->\n")
    _, _, after = rest.partition("<!-- end of bakeoff -->\n")
    versions = ", ".join(f"{name} {number}" for name, number in found["machine"]["versions"].items())
    body = "\n".join([f"{versions}; raw samples in `bench/results/bakeoff-cpu.json`.", "", *table(found)])
    page.write_text(f"{before}<!-- bakeoff -->\n{body}\n<!-- end of bakeoff -->\n{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
