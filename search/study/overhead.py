"""What an executor adds to a measurement: `python -m diffopt.search.study.overhead` writes ray-overhead.json."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from diffopt.bench.device import environment
from diffopt.search.engine import Engine, Settings
from diffopt.search.executors.ray import RayExecutor
from diffopt.search.records import Candidate
from diffopt.search.store import MEMORY, Store
from diffopt.search.study.pretend import payload
from diffopt.search.study.synthetic import Synthetic

RESULTS = Path(__file__).resolve().parents[2] / "bench" / "results" / "ray-overhead.json"
MEASUREMENT_S = 5.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Time pretended measurements and write what is left when their own time is taken away."""
    parser = argparse.ArgumentParser(prog="python -m diffopt.search.study.overhead", description=__doc__)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--count", type=int, default=80, help="measurements")
    parser.add_argument("--seconds", type=float, default=0.25, help="that each pretends to take")
    parser.add_argument("-o", "--out", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    candidates = _candidates(given.count)
    with tempfile.TemporaryDirectory(prefix="diffopt-overhead-") as locks:
        devices = tuple(f"pretended:{number}" for number in range(given.workers))
        settings = {"seed": 0, "seconds": given.seconds}
        started = time.perf_counter()
        with RayExecutor(
            "diffopt.search.study.pretend:measure",
            settings,
            payload,
            workers=given.workers,
            devices=devices,
            locks=Path(locks),
        ) as executor:
            _run(executor, candidates[: given.workers])
            ready = time.perf_counter() - started
            rounds = [_run(executor, candidates) for _ in range(3)]
    slots = -(-given.count // given.workers)
    each = median(rounds) / slots - given.seconds
    table = {
        "command": f"python -m diffopt.search.study.overhead --workers {given.workers} --count {given.count}"
        f" --seconds {given.seconds}",
        "environment": environment(),
        "start_s": round(ready, 2),
        "rounds_s": [round(r, 3) for r in rounds],
        "overhead_ms": round(1e3 * each, 2),
        f"share_of_{MEASUREMENT_S:g}_s": round(each / MEASUREMENT_S, 5),
    }
    given.out.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    print(f"{1e3 * each:.1f} ms a measurement, {each / MEASUREMENT_S:.2%} of {MEASUREMENT_S:g} s; start {ready:.1f} s")
    return 0


def _candidates(count: int) -> list[Candidate]:
    problem = Synthetic()
    with Store(MEMORY) as store:
        engine = Engine(problem.module, store, run_id="r", space=problem, settings=Settings(offspring=1, rounds=1))
        found = [candidate for _ in range(count) if (candidate := engine.ask()) is not None]
    return found


def _run(executor: RayExecutor, candidates: Sequence[Candidate]) -> float:
    started = time.perf_counter()
    waiting, running = list(candidates), 0
    while waiting or running:
        while waiting and executor.free:
            executor.submit(waiting.pop())
            running += 1
        executor.wait()
        running -= 1
    return time.perf_counter() - started


if __name__ == "__main__":
    raise SystemExit(main())
