"""Try every class in a process of its own, with a time limit; what is known already is not tried again."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from diffopt.bench.coverage.check_class import check_class
from diffopt.bench.coverage.small_models import denoiser_classes, table

BACKENDS = ("onnxruntime", "openvino")
LIBRARIES = ("torch", "diffusers", "onnxruntime", "openvino")
HEAD = """# Which denoiser classes become engines

Made by `python -m diffopt.bench.coverage --page docs/coverage.md`; do not edit. Every transformer and UNet class of the
installed diffusers, built small at random (`bench/coverage/small.json`), exported, and compared with torch at its batch and at
another where the batch is open. *Exported* means a relative L2 error of at most 1e-3 in float32.
"""


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m diffopt.bench.coverage", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="CLASS", help="only these classes")
    parser.add_argument("--results", type=Path, default=Path("bench/results/coverage.json"))
    parser.add_argument("--limit", type=float, default=240, help="seconds a class and backend (default: %(default)s)")
    parser.add_argument("--again", action="store_true", help="try also what is known")
    parser.add_argument("--failed", action="store_true", help="try again what failed")
    parser.add_argument("--page", type=Path, help="write the table from what is known, and try nothing")
    parser.add_argument("--one", nargs="+", metavar="CLASS BACKEND", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        name, *backends = options.one
        for backend in backends:
            print("\n" + json.dumps({backend: check_class(name, backend)}), flush=True)
        return 0
    versions = {name: version(name) for name in LIBRARIES}
    results: dict[str, Any] = {"versions": versions, "classes": {}}
    if options.results.exists():
        known = json.loads(options.results.read_text())
        results = known if known["versions"] == versions else results
    if options.page:
        options.page.write_text(page(results))
        return 0
    for name in options.names or denoiser_classes():
        row = results["classes"].setdefault(name, {})
        wanted = [
            backend
            for backend in BACKENDS
            if options.again or not (done := row.get(backend)) or (options.failed and done["status"] != "exported")
        ]
        if not wanted:
            continue
        row.update(_in_process(name, wanted, options.limit))
        for backend in wanted:
            print(
                f"{name:45} {backend:12} {row[backend]['status']:10} {row[backend].get('reason', '')[:150]}", flush=True
            )
        options.results.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    return 0


def _in_process(name: str, backends: list[str], limit: float) -> dict[str, Any]:
    """Return what became of a class, by backend; what a crash or the limit leaves open is the crash's or the limit's."""
    if name not in table():
        return {backend: check_class(name, backend) for backend in backends}
    command = [sys.executable, "-m", "diffopt.bench.coverage", "--one", name, *backends]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    out, rest = "", {"status": "timeout", "reason": f"not done in {limit * len(backends):.0f} s"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=limit * len(backends), env=environment, check=False
        )
        last = (done.stderr.strip().splitlines() or ["nothing said"])[-1]
        out, rest = done.stdout, {"status": "crashed", "reason": f"exit code {done.returncode}: {last[:300]}"}
    except subprocess.TimeoutExpired as late:
        out = late.stdout.decode() if isinstance(late.stdout, bytes) else late.stdout or ""
    found: dict[str, Any] = {}
    for line in out.splitlines():
        if line.startswith('{"'):
            found |= json.loads(line)
    return {backend: found.get(backend, rest) for backend in backends}


def page(results: dict[str, Any]) -> str:
    """Return the table as a page."""
    classes: dict[str, dict[str, dict[str, Any]]] = results["classes"]
    built = [name for name, row in classes.items() if any(r["status"] != "not built" for r in row.values())]
    lines = [HEAD, ", ".join(f"{name} {text}" for name, text in results["versions"].items()) + ".", ""]
    for backend in BACKENDS:
        count = sum(classes[name].get(backend, {}).get("status") == "exported" for name in built)
        share = 100 * count / max(1, len(built))
        lines.append(
            f"- {backend}: {count} of {len(built)} that can be built small ({share:.0f} %), {len(classes)} in all"
        )
    both = sum(all(r["status"] == "exported" for r in classes[name].values()) for name in built)
    lines += [f"- both: {both} of {len(built)} ({100 * both / max(1, len(built)):.0f} %)", ""]
    lines += ["| class | batch | ONNX (ONNX Runtime) | OpenVINO |", "| --- | --- | --- | --- |"]
    for name, row in sorted(classes.items()):
        batch = next((r["batch"] for r in row.values() if "batch" in r), "")
        lines.append(f"| {name} | {batch} | " + " | ".join(_cell(row.get(backend, {})) for backend in BACKENDS) + " |")
    return "\n".join(lines) + "\n"


def _cell(found: dict[str, Any]) -> str:
    if found.get("status") == "exported":
        return f"exported, {found['relative_l2_error']:.0e}"
    reason = str(found.get("reason", "")).replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
    return f"{found.get('status', 'not tried')}: {reason[:200]}"


if __name__ == "__main__":
    sys.exit(main())
