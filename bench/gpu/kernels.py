"""Measure every kernel at the shapes of full-size pipelines, and say where each wins.

`python -m diffopt.bench.gpu.kernels --out kernels.json` takes about a minute and a half on an H200. It goes on where
an earlier run stopped; a case that fails is recorded, and the rest go on, in a new process where the device is lost.
`--device cpu --small` runs all of it in Triton's interpreter, for its code, not its times.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

FORMAT = 1
LOST = 3
"""Exit code of a process that lost its device."""
STARTS = 6


def main(arguments: Sequence[str], clock: Callable[[], float] = time.monotonic) -> int:
    """Run what the command line asks for, in processes of its own; return 0 when the file is written."""
    parser = argparse.ArgumentParser(prog="python -m diffopt.bench.gpu.kernels", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="results, JSON; an earlier run's are kept")
    parser.add_argument("--device", default="cuda", help="cuda or cpu")
    parser.add_argument("--small", action="store_true", help="a few numbers of each instead of full-size shapes")
    parser.add_argument("--budget", type=float, default=85.0, help="seconds after which no case is begun")
    parser.add_argument("--rounds", type=int, default=20, help="samples of each arm")
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    parser.add_argument("--retry", action="store_true", help="try again what failed earlier")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--inner", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.inner:
        return _inner(asked, clock)
    if asked.retry:
        found = read(asked.out)
        found["cases"] = {name: case for name, case in found["cases"].items() if "failed" not in case}
        _write(asked.out, found)
    end = clock() + asked.budget
    for _ in range(STARTS):
        left = end - clock()
        if left <= 0 or _child(asked, left) == 0:
            break
        _give_up_on_what_ran(asked.out)
    print(table(read(asked.out)))
    return 0


def _child(asked: argparse.Namespace, left: float) -> int:
    """Run the cases in a process of their own for `left` seconds, and return how it ended."""
    command = [sys.executable, "-m", "diffopt.bench.gpu.kernels", "--inner", "--out", str(asked.out)]
    command += ["--device", asked.device, "--budget", str(left), "--rounds", str(asked.rounds)]
    command += ["--seed", str(asked.seed), "--only", asked.only, *(["--small"] if asked.small else [])]
    environment = {**os.environ, **({"TRITON_INTERPRET": "1"} if asked.device == "cpu" else {})}
    try:
        return subprocess.run(command, env=environment, timeout=left + 60, check=False).returncode
    except subprocess.TimeoutExpired:
        return LOST


def _inner(asked: argparse.Namespace, clock: Callable[[], float]) -> int:
    """Measure every case that the file does not hold yet, and write each as it comes."""
    import torch

    from diffopt.bench.gpu.kernel_cases import cases
    from diffopt.bench.gpu.kernel_timing import ceilings, measured

    end = clock() + asked.budget
    found = read(asked.out)
    found["environment"] = _environment(asked.device)
    found["small"] = asked.small
    if not found["ceilings"]:
        small = {"side": 64, "copied": 1 << 16} if asked.small else {}
        found["ceilings"] = ceilings(asked.device, **small)
        _write(asked.out, found)
    seen = {name.partition("/")[0] for name, case in found["cases"].items() if "failed" not in case}
    with torch.no_grad():
        for case in cases(asked.device, small=asked.small):
            if case.name in found["cases"] or asked.only not in case.name:
                continue
            if clock() >= end:
                found["left"] = [*found.get("left", []), case.name]
                continue
            kernel, began = case.name.partition("/")[0], clock()
            found["cases"][case.name] = {"running": True}
            _write(asked.out, found)
            try:
                result: dict[str, Any] = measured(
                    case, device=asked.device, seed=asked.seed, rounds=asked.rounds, in_inductor=kernel not in seen
                )
                seen.add(kernel)
            except Exception:  # noqa: BLE001 - its trace is the result
                result = {"failed": traceback.format_exc(limit=-6)[-2500:]}
            found["cases"][case.name] = {**result, "took_s": round(clock() - began, 2)}
            _write(asked.out, found)
            if "failed" in result and _lost(asked.device):
                return LOST
    found["left"] = [name for name in found.get("left", []) if name not in found["cases"]]
    _write(asked.out, found)
    return 0


def _lost(device: str) -> bool:
    """Tell whether the device takes no more work in this process."""
    import torch

    if device == "cpu":
        return False
    try:
        torch.ones(8, device=device).sum().item()
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


def _environment(device: str) -> dict[str, Any]:
    import platform

    import torch

    from diffopt.backends.kernels import launching

    version = getattr(launching.triton, "__version__", "")
    name = torch.cuda.get_device_name() if device != "cpu" else platform.machine()
    found = {"device": name, "torch": torch.__version__, "triton": version, "python": platform.python_version()}
    return {**found, "cuda": torch.version.cuda or "", "interpreted": launching.interpreted()}


def read(path: Path) -> dict[str, Any]:
    """Return what an earlier run left, or the empty form of it."""
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    return {"format": FORMAT, "environment": {}, "ceilings": {}, "cases": {}}


def _write(path: Path, found: dict[str, Any]) -> None:
    """Write all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    draft.replace(path)


def _give_up_on_what_ran(path: Path) -> None:
    """Record as failed the case in which a process ended."""
    found = read(path)
    for name, case in found["cases"].items():
        if "running" in case:
            found["cases"][name] = {"failed": "its process ended or hung"}
    _write(path, found)


def wins(case: dict[str, Any]) -> bool | None:
    """Tell whether the kernel is faster than inductor, by the lower end of the interval; None where that is not known."""
    against = case.get("against", {}).get("inductor")
    return None if against is None else bool(against[1] > 1.0)


def table(found: dict[str, Any]) -> str:
    """Return the results as a table for people."""
    rows = [
        f"{'case':44} {'error':>8} {'eager':>9} {'inductor':>9} {'ours':>9} {'x eager':>8} {'x inductor':>20} GB/s TFLOP/s"
    ]
    for name, case in found["cases"].items():
        if "median_us" not in case:
            rows.append(f"{name:44} failed: {str(case.get('failed', 'not finished')).strip().splitlines()[-1][:90]}")
            continue
        times, against = case["median_us"], case["against"]
        eager, inductor = against.get("eager", [0.0]), against.get("inductor", [0.0, 0.0, 0.0])
        verdict = {True: "wins", False: "", None: "?"}[wins(case)]
        rows.append(
            f"{name:44} {case['error']:8.1e} {times.get('eager', 0):9.1f} {times.get('inductor', 0):9.1f}"
            f" {times['ours']:9.1f} {eager[0]:8.2f} {inductor[0]:6.2f} [{inductor[1]:.2f}, {inductor[2]:.2f}]"
            f" {case['gb_per_s']:7.0f} {case['tflop_per_s']:6.0f} {verdict}"
        )
        others = {arm: value for arm, value in times.items() if arm not in ("eager", "inductor", "ours")}
        rows += [f"    {arm}: {value} us" for arm, value in others.items()]
        rows += [f"    {arm} failed: {text.strip().splitlines()[-1][:100]}" for arm, text in case["failures"].items()]
    return "\n".join([str(found["environment"]), str(found["ceilings"]), *rows, f"left: {found.get('left', [])}"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
