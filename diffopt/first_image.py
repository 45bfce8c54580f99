"""How long a fresh process takes from its start to its first image of demo:shapes: `python -m diffopt.first_image`.

`--build` makes the engines first. The arm `compile` starts with empty caches, as a fresh machine does; `compile, cached` finds what
an earlier process has compiled. Each start is written down at once, so a stopped run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from diffopt.bench.device import environment
from diffopt.bench.statistics import median
from diffopt.ir.emit_pipeline import emit_pipeline
from diffopt.passes.pipeline import Trace, applied
from diffopt.sources import lift

ARMS = {
    "compile": "compile",
    "compile, cached": "compile",
    "onnxruntime": "export{backend=onnxruntime scope=components}",
    "onnxruntime, one engine": "export{backend=onnxruntime scope=pipeline}",
    "aotinductor": "export{backend=aotinductor scope=components}",
    "openvino, one engine": "export{backend=openvino scope=pipeline precision=bf16}",
}
PROMPT = "a large red circle on the left and a small blue square on the right, white background"
RUNNER = """
import importlib.util, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("emitted", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
pipe = module.load(engines=Path(sys.argv[2]))
pipe.set_progress_bar_config(disable=True)
print(pipe(sys.argv[3]).images[0].size)
"""


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m diffopt.first_image", description=__doc__)
    parser.add_argument("arms", nargs="*", metavar="ARM", help="only these")
    parser.add_argument("--work", type=Path, default=Path("out/first-image"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--build", action="store_true", help="only build the engines, and fill the compiler's cache")
    parser.add_argument("--again", action="store_true", help="forget what was measured before")
    parser.add_argument("-o", "--out", type=Path, default=Path("bench/results/first-image-cpu.json"))
    options = parser.parse_args()
    lifted = lift("demo:shapes").module
    chosen = {name: ARMS[name] for name in options.arms} if options.arms else ARMS
    options.work.mkdir(parents=True, exist_ok=True)
    for name, trace in chosen.items():
        _file(options.work, name).write_text(emit_pipeline(applied(Trace.parse(trace), lifted)))
    seconds = {} if options.build or options.again else measured(options.out)
    rng, begun = random.Random(0), time.monotonic()
    for number in range(1, (1 if options.build else options.rounds) + 1):
        for name in rng.sample(sorted(chosen), len(chosen)):
            if options.build and name == "compile":
                continue
            taken = seconds.setdefault(name, [])
            if len(taken) >= number:
                continue
            taken.append(_first(options.work, name))
            print(
                f"round {number}, {time.monotonic() - begun:.0f} s: {name:28} {taken[-1]:7.2f} s",
                file=sys.stderr,
                flush=True,
            )
            if not options.build:
                found: dict[str, Any] = {"environment": environment(), "arms": ARMS, "seconds": seconds}
                options.out.write_text(json.dumps(found, indent=1, default=str) + "\n")
    for name, taken in seconds.items():
        print(f"{name:28} {median(taken):7.2f} s, median of {len(taken)}")
    return 0


def measured(path: Path) -> dict[str, list[float]]:
    """Return the seconds that a results file holds by arm; none where it is of other versions or another machine."""
    if not path.exists():
        return {}
    found, now = json.loads(path.read_text()), environment()
    same = all(found["environment"].get(name) == now[name] for name in ("cpu", "cores", "python", "versions"))
    return dict(found["seconds"]) if same else {}


def _file(work: Path, name: str) -> Path:
    return work / f"{name.replace(', ', '-').replace(' ', '-')}.py"


def _first(work: Path, name: str) -> float:
    """Return the seconds from the start of a process to the end of its first image."""
    with tempfile.TemporaryDirectory() as empty:
        cache = str(work / "inductor") if name.endswith("cached") else empty
        command = [sys.executable, "-W", "ignore", "-c", RUNNER, str(_file(work, name)), str(work / "engines"), PROMPT]
        settings = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache, "HF_HUB_OFFLINE": "1"}
        started = time.perf_counter()
        done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
        took = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr[-2000:]}")
    return took


if __name__ == "__main__":
    sys.exit(main())
