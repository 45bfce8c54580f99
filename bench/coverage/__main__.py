"""Try every class in a process of its own, with a time limit; what is known already is not tried again."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from importlib.metadata import version
from multiprocessing.connection import Connection
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
    parser.add_argument("--count", type=int, default=1000, help="stop after so many classes; the next run goes on")
    options = parser.parse_args()
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
        if not wanted or options.count <= 0:
            continue
        options.count -= 1
        row.update(_in_process(name, wanted, options.limit))
        for backend in wanted:
            print(
                f"{name:45} {backend:12} {row[backend]['status']:10} {row[backend].get('reason', '')[:150]}", flush=True
            )
        options.results.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    return 0


def _in_process(name: str, backends: list[str], limit: float) -> dict[str, Any]:
    """Return what became of a class, by backend; what a crash or the limit leaves open is the crash's or the limit's.

    The child is forked from this process, which has the libraries loaded and has run nothing of them.
    """
    if name not in table():
        return {backend: check_class(name, backend) for backend in backends}
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(name, backends, sender))
    child.start()
    sender.close()
    found: dict[str, Any] = {}
    rest = {"status": "timeout", "reason": f"not done in {limit:.0f} s"}
    try:
        while len(found) < len(backends) and receiver.poll(limit):
            found |= json.loads(receiver.recv_bytes())
    except EOFError:
        child.join()
        rest = {"status": "crashed", "reason": f"exit code {child.exitcode}"}
    child.kill()
    child.join()
    return {backend: found.get(backend, rest) for backend in backends}


def _child(name: str, backends: list[str], sender: Connection) -> None:
    import torch

    torch.set_num_threads(1)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for the rest of this process
    for backend in backends:
        sender.send_bytes(json.dumps({backend: check_class(name, backend)}).encode())


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
