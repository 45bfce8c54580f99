"""Every backend against eager torch, component by component: `python -m diffopt.bench.bakeoff`, or `make bakeoff`.

`--build` makes the engines and may share the machine; without it they are measured. Both go on where they were stopped. Each
engine is loaded and raced in a process of its own. What torch's own compilers make is made of demo:shapes alone unless
`--compilers MODEL` asks for more: one such engine takes minutes of a core.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from diffopt.bench.bakeoff.contender import BATCHES, EAGER, versions
from diffopt.bench.bakeoff.page import write_page
from diffopt.bench.bakeoff.race import PAIRS, Racer, preload, raced
from diffopt.bench.device import environment
from diffopt.bench.models import shipped

RUNTIMES = (("openvino", "f32"), ("openvino", "bf16"), ("onnxruntime", "f32"), ("onnxruntime", "int8-dynamic"))
COMPILERS = (("inductor", "f32"), ("aotinductor", "f32"), ("aotinductor", "bf16"))
Place = tuple[str, str, str, str]


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m diffopt.bench.bakeoff", description=__doc__)
    parser.add_argument("--build", action="store_true", help="make the engines, and measure nothing")
    parser.add_argument("--engines", type=Path, default=Path("out/bakeoff"))
    parser.add_argument("--results", type=Path, default=Path("bench/results/bakeoff-cpu.json"))
    parser.add_argument("--model", action="append", default=[], help="only this one; all built-in ones by default")
    parser.add_argument("--component", action="append", default=[])
    parser.add_argument("--backend", action="append", default=[])
    parser.add_argument("--compilers", action="append", default=["demo:shapes"], metavar="MODEL")
    parser.add_argument("--again", action="store_true", help="measure what is measured already, too")
    parser.add_argument(
        "--page", type=Path, help="write the tables from the results into this page, and do nothing else"
    )
    options = parser.parse_args()
    if options.page:
        write_page(options.page, json.loads(options.results.read_text()))
        return 0
    options.engines.mkdir(parents=True, exist_ok=True)
    os.environ |= {
        "TORCHINDUCTOR_CACHE_DIR": str(options.engines.absolute() / "inductor"),
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
    }
    preload()
    measured = {} if options.build or options.again else _measured(options.results)
    chosen = [place for place in _places(options) if place not in measured]
    if not options.build:
        unbuilt = [place for place in chosen if not _folder(options.engines, *place).exists()]
        chosen = [place for place in chosen if place not in unbuilt]
        if unbuilt:
            print(f"{len(unbuilt)} engines are not built yet: --build makes them", file=sys.stderr)
    _go(chosen, options.engines, options.build, options.results)
    return 0


def _places(options: argparse.Namespace) -> list[Place]:
    """Return model, component, backend and precision of all that is asked for; what is built quickly first."""
    found: list[Place] = []
    for contenders in (RUNTIMES, COMPILERS):
        for model in options.model or shipped():
            if contenders is COMPILERS and model not in options.compilers:
                continue
            for component in _components(model):
                if options.component and component not in options.component:
                    continue
                found += [
                    (model, component, backend, precision)
                    for backend, precision in contenders
                    if not options.backend or backend in options.backend
                ]
    return found


_known: dict[str, list[str]] = {}


def _components(model: str) -> list[str]:
    if model not in _known:
        racer = Racer(model, "", EAGER, "f32", Path())
        try:
            _known[model] = racer.ask("components")["components"]
        finally:
            racer.close()
    return _known[model]


def _measured(results: Path) -> dict[Place, dict[str, Any]]:
    """Return the rows that were measured with the versions installed now."""
    if not results.exists():
        return {}
    found = json.loads(results.read_text())
    if found["machine"]["versions"] != versions():
        return {}
    return {_place(row): row for row in found["rows"] if "failed" not in row}


def _folder(engines: Path, model: str, component: str, backend: str, precision: str) -> Path:
    return engines / model.removeprefix("demo:") / f"{component}-{backend}-{precision}"


def _place(row: dict[str, Any]) -> Place:
    return row["model"], row["component"], row["backend"], row["precision"]


def _go(chosen: list[Place], engines: Path, build: bool, results: Path) -> None:
    started, eager, beside = time.monotonic(), None, ("", "")
    rows = _measured(results)
    try:
        for done, (model, component, backend, precision) in enumerate(chosen, 1):
            folder = _folder(engines, model, component, backend, precision)
            if not build and beside != (model, component):
                if eager is not None:
                    eager.close()
                eager, beside = Racer(model, component, EAGER, "f32", folder), (model, component)
                eager.ask("load")
            engine = Racer(model, component, backend, precision, folder)
            try:
                row = engine.ask("build") if eager is None else raced(eager, engine)
            except EOFError:
                row = {"failed": f"exit code {engine.close()}"}
            finally:
                engine.close()
            named = {"model": model, "component": component, "backend": backend, "precision": precision}
            said = {
                key: row[key] for key in ("failed", "build_s", "ratio", "lo", "hi", "relative_l2_error") if key in row
            }
            print(
                f"{done}/{len(chosen)} {time.monotonic() - started:.0f} s {' '.join(named.values())} {json.dumps(said)}",
                file=sys.stderr,
                flush=True,
            )
            if not build:
                rows[model, component, backend, precision] = named | row
                _write(results, rows)
    finally:
        if eager is not None:
            eager.close()


def _write(results: Path, rows: dict[Place, dict[str, Any]]) -> None:
    order = {model: index for index, model in enumerate(shipped())}
    ordered = sorted(
        rows.values(),
        key=lambda row: (order.get(row["model"], len(order)), _components(row["model"]).index(row["component"])),
    )
    machine = {"environment": environment(), "versions": versions()}
    found = {"machine": machine, "pairs": PAIRS, "batches": list(BATCHES), "rows": ordered}
    results.write_text(json.dumps(found, indent=1, default=str) + "\n")


if __name__ == "__main__":
    sys.exit(main())
