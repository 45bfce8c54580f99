"""Every backend against eager torch, component by component: `python -m diffopt.bench.bakeoff`, or `make bakeoff`.

`--build` makes the engines and may share the machine; without it they are measured, which wants the machine alone. Each engine
is loaded and raced in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import signal
import sys
import time
from functools import cache
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffopt.bench.models.shapes import SHAPES

if TYPE_CHECKING:
    import torch

    from diffopt.backends.base import Builder, Part, Run

CONTENDERS = (
    ("inductor", "f32"), ("aotinductor", "f32"), ("aotinductor", "bf16"), ("onnxruntime", "f32"),
    ("openvino", "f32"), ("openvino", "bf16"),
)  # fmt: skip
COMPONENTS = ("text_encoder", "unet", "vae_decoder", "vae_encoder")
LIBRARIES = ("torch", "diffusers", "openvino", "onnxruntime")
BATCHES = (1, 2, 3)
"""Pictures a call at which errors are measured; guidance doubles them for the denoiser. Latency is measured at the first."""
PAIRS = 40
SECONDS = 2.0
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
    _preload()
    for component in COMPONENTS:
        for backend, precision in CONTENDERS:
            if (options.component and component not in options.component) or (
                options.backend and backend not in options.backend
            ):
                continue
            row = _row(component, backend, precision, options.engines, options.build)
            print(
                json.dumps({k: v for k, v in row.items() if not k.endswith("r_s") and k != "engine_s"}),
                file=sys.stderr,
                flush=True,
            )
            if options.build:
                continue
            rows[component, backend, precision] = row
            found = {"machine": machine, "pairs": PAIRS, "batches": list(BATCHES), "rows": list(rows.values())}
            options.results.write_text(json.dumps(found, indent=1, default=str) + "\n")
    return 0


def _preload() -> None:
    """Import what every child needs. Nothing of torch is run here: its threads would not live on in a child."""
    import diffusers.pipelines.stable_diffusion
    import transformers.models.clip

    del diffusers, transformers


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


def _row(component: str, backend: str, precision: str, engines: Path, build: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"component": component, "backend": backend, "precision": precision}
    engine = _Racer(component, backend, precision, engines, build)
    try:
        if build:
            return row | engine.ask("build")
        eager = _Racer(component, "eager", precision, engines, False)
        try:
            return row | _raced(eager, engine)
        finally:
            eager.close()
    except EOFError:
        return row | {"failed": f"exit code {engine.close()}"}
    finally:
        engine.close()


class _Racer:
    """A process that runs one thing when it is asked, and is stopped while it is not: waiting threads of one runtime spin.

    Forked from this process, which has the libraries loaded and has run nothing of them.
    """

    def __init__(self, component: str, backend: str, precision: str, engines: Path, build: bool) -> None:
        context = multiprocessing.get_context("fork")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_child, args=(component, backend, precision, engines, build, theirs))
        self._process.start()
        theirs.close()

    def ask(self, what: str) -> dict[str, Any]:
        """Return the answer. Raises EOFError if the process has ended."""
        pid = self._process.pid or 0
        os.kill(pid, signal.SIGCONT)
        self._pipe.send_bytes(what.encode())
        answer: dict[str, Any] = json.loads(self._pipe.recv_bytes())
        os.kill(pid, signal.SIGSTOP)
        return answer

    def close(self) -> int | None:
        self._process.kill()
        self._process.join()
        return self._process.exitcode


def _raced(eager: _Racer, engine: _Racer) -> dict[str, Any]:
    """Time both in pairs, in random order, after both have run warm."""
    import numpy as np

    from diffopt.bench.statistics import median, paired_ratio

    facts = engine.ask("load")
    if "failed" in facts:
        return facts
    eager.ask("load")
    rng, times = random.Random(0), (list[float](), list[float]())
    for _ in range(5):
        eager.ask("run")
        engine.ask("run")
    end = time.perf_counter() + SECONDS
    while len(times[0]) < PAIRS and (len(times[0]) < 10 or time.perf_counter() < end):
        for who in rng.sample((0, 1), 2):
            times[who].append(float((eager, engine)[who].ask("run")["seconds"]))
    interval = paired_ratio(*times, rng=np.random.default_rng(0))
    return {
        "ratio": interval.ratio, "lo": interval.lo, "hi": interval.hi, "pairs": interval.pairs,
        "eager_ms": 1e3 * median(times[0]), "engine_ms": 1e3 * median(times[1]),
        "eager_s": times[0], "engine_s": times[1], **facts, **engine.ask("check"),
    }  # fmt: skip


def _child(component: str, backend: str, precision: str, engines: Path, build: bool, pipe: Connection) -> None:
    import torch

    from diffopt.backends.base import BackendError
    from diffopt.backends.numeric_check import resized

    part = next(part for part in _parts() if part.name == component)
    usual = resized(part, {axis.name: axis.usual for axes in part.axes() for axis in axes.values()})
    run: Run | None = None
    while True:
        asked, found = pipe.recv_bytes().decode(), dict[str, Any]()
        try:
            with torch.no_grad():
                if asked == "build":
                    found = _build(part, backend, precision, engines)
                elif asked == "load":
                    run, found = _loaded(part, usual, backend, precision, engines)
                elif asked == "run" and run is not None:
                    started = time.perf_counter()
                    run(usual)
                    found = {"seconds": time.perf_counter() - started}
                elif asked == "check" and run is not None:
                    found = _checked(part, run)
        except BackendError as error:
            found = {"failed": str(error)[:300]}
        pipe.send_bytes(json.dumps(found).encode())


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


def _loaded(
    part: Part, usual: tuple[torch.Tensor, ...], backend: str, precision: str, engines: Path
) -> tuple[Run, dict[str, Any]]:
    from diffopt.backends.base import EngineOptions, builder
    from diffopt.backends.engine_store import read_manifest

    if backend == "eager":
        return lambda inputs: part.module(*inputs), {}
    folder, started = engines / f"{part.name}-{backend}-{precision}", time.perf_counter()
    facts: dict[str, Any] = {}
    if backend == "inductor":
        run = _inductor(part)
    else:
        chosen: Builder = builder(backend, EngineOptions(precision), "cpu")
        run, facts = chosen.load(folder, EngineOptions(precision)), read_manifest(folder)["facts"]
    run(usual)
    first = time.perf_counter() - started
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.exists() else 0
    return run, {"build_s": facts.get("total_build_s", round(first, 2)), "first_call_s": round(first, 3), "bytes": size}


def _checked(part: Part, run: Run) -> dict[str, Any]:
    from diffopt.backends.numeric_check import compare_sizes
    from diffopt.bench.memory import peak_bytes

    peak = peak_bytes(os.getpid())
    axis = next(axis for axes in part.axes() for axis in axes.values())
    checks = [check for _, check in compare_sizes(run, part, [{"batch": axis.usual * batch} for batch in BATCHES])]
    return {
        "max_error": [largest for largest, _ in checks],
        "relative_l2_error": [relative for _, relative in checks],
        "peak_bytes": peak,
    }


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
