"""How often the racing is wrong: `python -m diffopt.bench.studies.calibration` writes bench/results/calibration-cpu.json.

Programs that do a known amount of work are raced through the same workers, pairs and intervals as any candidate, while a
load comes and goes: 200 times against themselves, and 200 times each against one that does 2, 5 and 20 % more. Beside
it, the same number of calls in two blocks one after the other, as most benchmarks do.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffopt.bench import device
from diffopt.bench.contestant import Contestant
from diffopt.bench.disk import make_folder
from diffopt.bench.environment import allowed, worker_environment
from diffopt.bench.forkserver import ForkServer
from diffopt.bench.latency import Call, Timing, race
from diffopt.bench.resident import Images, Resident
from diffopt.bench.statistics import Interval, median, paired_ratio, stop_reason
from diffopt.bench.studies.load import background_load
from diffopt.bench.workload import Workload

RESULTS = Path(__file__).resolve().parents[1] / "results" / "calibration-cpu.json"
SIZE, UNITS, A_RUN = 8, 100, 20
EFFECTS = (0, 2, 5, 20)
"""Percent of work that the baseline does more than the candidate."""

PROGRAM = """
import numpy as np
import torch

class Work:
    def __init__(self, units):
        self.units = units
        self.weights = torch.randn({width}, {width}, generator=torch.Generator().manual_seed(0)) / {width} ** 0.5

    def __call__(self, prompt, *, generator, output_type):
        drawn = torch.randn({width}, 32, generator=generator)
        with torch.no_grad():
            for _ in range(self.units):
                drawn = torch.tanh(self.weights @ drawn)
        pictures = np.random.default_rng(int(generator.initial_seed())).random((1, {size}, {size}, 3), dtype=np.float32)
        return type("Result", (), dict(images=pictures))

def load(device="cpu", engines=None):
    return Work({units})
"""


@dataclass(frozen=True)
class Side:
    """Something that does a given number of units of work a call, and how to end it."""

    call: Call
    close: Callable[[], None]


class Inside:
    """Sides in this process: the same racing and intervals without workers, a call of 2 ms; quick enough for many trials."""

    def __init__(self, width: int) -> None:
        rng = np.random.default_rng(0)
        self._weights, self._start = rng.normal(size=(width, width)) / width**0.5, rng.normal(size=(width, 16))
        self._image = np.zeros((1, 1, 1, 3), np.float32)

    def side(self, units: int, copy: str = "") -> Side:
        """Return a side of so much work."""

        def call(prompts: list[str], seeds: list[int]) -> tuple[float, Images]:
            started, drawn = time.perf_counter(), self._start
            for _ in range(units):
                drawn = np.tanh(self._weights @ drawn)
            return time.perf_counter() - started, self._image

        return Side(call, lambda: None)


class Workers:
    """Sides in workers, as a candidate has them, on one fork server."""

    def __init__(self, folder: Path, server: ForkServer, width: int) -> None:
        self._folder, self._server, self._width = folder, server, width
        self._workload = Workload(("a",), ("b",), 0, SIZE, SIZE)

    def side(self, units: int, copy: str = "") -> Side:
        """Return a fresh worker of so much work."""
        place = make_folder(self._folder / f"{units}{copy}")
        resident = Resident(
            self._server, f"{units} units", place, environment=worker_environment(place, place), memory_limit=4 << 30
        )
        made = Contestant(resident, self._workload, timeout_s=120.0)
        path = place / "pipeline.py"
        path.write_text(PROGRAM.format(units=units, width=self._width, size=SIZE))
        made.load(path, model=None, device="cpu", engines=place)
        for seed in range(5):
            made(["a"], [seed])
        return Side(made, resident.close)


def costs_of(bench: Inside | Workers) -> tuple[float, float]:
    """Return the seconds of a call without work, and of a unit of work."""
    idle, working = bench.side(0, "-idle"), bench.side(UNITS)
    overhead = median([idle.call(["a"], [n])[0] for n in range(50)])
    unit = (median([working.call(["a"], [n])[0] for n in range(50)]) - overhead) / UNITS
    for each in (idle, working):
        each.close()
    return overhead, unit


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the study, or go on with it, and write what came of it."""
    parser = argparse.ArgumentParser(prog="python -m diffopt.bench.studies.calibration", description=__doc__)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=30, help="a trial")
    parser.add_argument("--load", type=int, default=1, help="processes of background load, beside what there is")
    parser.add_argument("--width", type=int, default=96, help="of the matrices: how long a unit of work takes")
    parser.add_argument(
        "--inside", action="store_true", help="in this process instead of in workers: quicker, less real"
    )
    parser.add_argument("--effects", type=int, nargs="+", default=EFFECTS, help="percent of work the baseline has more")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--raw", type=Path, help="keep all times in this .npz, and go on from it")
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after these; with --raw, run again to go on")
    parser.add_argument("-o", "--out", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    known = _read(given.raw)
    costs = known.pop("costs", np.empty((0, 2)))
    known, new_costs = collect(
        known, given.effects, given.trials, given.pairs,
        load=given.load, width=given.width, seed=given.seed + len(costs), seconds=given.seconds, inside=given.inside,
    )  # fmt: skip
    costs = np.concatenate([costs, [new_costs]])
    if given.raw is not None:
        np.savez_compressed(given.raw, costs=costs, **{name: times for name, times in known.items() if len(times)})
    study = report(known, costs)
    study["command"] = (
        f"python -m diffopt.bench.studies.calibration --trials {given.trials} --pairs {given.pairs}"
        f" --load {given.load} --width {given.width} --seed {given.seed}{' --inside' if given.inside else ''}"
    )
    given.out.write_text(json.dumps(study, indent=None, separators=(",", ":")) + "\n", encoding="utf-8")
    for row in study["effects"]:
        print(json.dumps({key: value for key, value in row.items() if key != "trials"}))


def _read(raw: Path | None) -> dict[str, Any]:
    if raw is None or not raw.is_file():
        return {}
    with np.load(raw, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def collect(
    known: dict[str, Any], effects: Sequence[int], trials: int, pairs: int,
    *, load: int, width: int, seed: int, seconds: float, inside: bool,
) -> tuple[dict[str, Any], tuple[float, float]]:  # fmt: skip
    """Add trials, a score of one effect after a score of the next, until there are enough or the time is over.

    Returns the times by effect, (trials, 4, pairs), and the seconds of a call without work and of a unit of work.
    """
    rng, until = np.random.default_rng(seed), time.monotonic() + seconds
    found = {f"effect_{effect}": known.get(f"effect_{effect}", np.empty((0, 4, pairs))) for effect in effects}
    with _bench(inside, width) as bench, background_load(load, seed=seed):
        costs = costs_of(bench)
        while time.monotonic() < until:
            name = min(found, key=lambda name: len(found[name]))
            missing = trials - len(found[name])
            if missing <= 0:
                break
            units = UNITS + int(name.partition("_")[2])
            for times in _trials(bench, units, min(missing, A_RUN), pairs, rng):
                found[name] = np.concatenate([found[name], [times]])
                if time.monotonic() > until:
                    break
    return found, costs


@contextmanager
def _bench(inside: bool, width: int) -> Iterator[Inside | Workers]:
    if inside:
        yield Inside(width)
        return
    with tempfile.TemporaryDirectory(prefix="diffopt-calibration-") as scratch:
        folder = Path(scratch)
        environment = allowed(os.environ, home=folder, threads=1)
        preload = ("numpy", "torch", "diffopt.bench.worker")
        with ForkServer(folder, environment=environment, preload=preload) as server:
            yield Workers(folder, server, width)


def report(known: dict[str, Any], costs: Any) -> dict[str, Any]:
    """Return the study: for each effect, how often each way of timing found it, missed it, or was wrong."""
    overhead, unit = np.median(costs, axis=0)
    rng = np.random.default_rng(0)
    rows = []
    for name, times in known.items():
        effect = int(name.partition("_")[2])
        truth = float((overhead + unit * (UNITS + effect)) / (overhead + unit * UNITS))
        rows.append(_summary(effect, truth, times, rng))
    return {
        "machine": device.environment(),
        "overhead_s": float(overhead),
        "unit_s": float(unit),
        "sessions": len(costs),
        "effects": rows,
    }


def _trials(bench: Inside | Workers, units: int, trials: int, pairs: int, rng: np.random.Generator) -> Iterator[Any]:
    """Yield trials as a run has them: a fresh process for every candidate, one baseline for all of them."""
    baseline = bench.side(units, "-baseline")
    for _ in range(trials):
        candidate = bench.side(UNITS)
        yield _trial(baseline.call, candidate.call, pairs, rng)
        candidate.close()
    baseline.close()


def _trial(baseline: Call, candidate: Call, pairs: int, rng: np.random.Generator) -> Any:
    """Return the times of interleaved pairs and of two blocks: (baseline, candidate, baseline block, candidate block)."""

    def draw() -> tuple[list[str], list[int]]:
        return ["a"], [int(rng.integers(1 << 31))]

    raced = race(baseline, candidate, draw, rng=rng, timing=Timing((pairs, pairs), half_width=0.0)).latency
    blocks = [[call(*draw())[0] for _ in range(pairs)] for call in (baseline, candidate)]
    return [raced.baseline_s, raced.candidate_s, *blocks]


def _summary(effect: int, truth: float, times: Any, rng: np.random.Generator) -> dict[str, Any]:
    """Judge every trial three ways: all pairs, pairs until the racing stops, and two blocks."""
    ways: dict[str, list[Interval]] = {"pairs": [], "racing": [], "blocks": []}
    for first, second, block_1, block_2 in times:
        ways["pairs"].append(paired_ratio(first, second, rng=rng))
        ways["racing"].append(_raced(first, second, rng))
        ways["blocks"].append(_blocks(block_1, block_2, rng))
    return {
        "percent": effect,
        "truth": truth,
        "count": len(times),
        **{name: _judged(found, truth) for name, found in ways.items()},
        "trials": {
            name: [[round(i.ratio, 5), round(i.lo, 5), round(i.hi, 5), i.pairs] for i in found]
            for name, found in ways.items()
        },
    }


def _raced(first: Any, second: Any, rng: np.random.Generator) -> Interval:
    """Stop where the racing of a candidate would have stopped: between 5 pairs and all, at half a width of 2 %."""
    for count in range(5, len(first)):
        interval = paired_ratio(first[:count], second[:count], rng=rng, stopping=True)
        if stop_reason(interval, pairs=(5, len(first))):
            return interval
    return paired_ratio(first, second, rng=rng, stopping=True)


def _blocks(first: Any, second: Any, rng: np.random.Generator) -> Interval:
    """Compare two blocks by their medians, each resampled by itself."""
    draws = [np.median(block[rng.integers(len(block), size=(2000, len(block)))], axis=1) for block in (first, second)]
    lo, hi = np.percentile(draws[0] / draws[1], [2.5, 97.5])
    return Interval(float(np.median(first) / np.median(second)), float(lo), float(hi), len(first))


def _judged(found: Sequence[Interval], truth: float) -> dict[str, float]:
    count = len(found)
    return {
        "covered": sum(i.lo <= truth <= i.hi for i in found) / count,
        "faster": sum(i.lo > 1 for i in found) / count,
        "slower": sum(i.hi < 1 for i in found) / count,
        "half_width": median([i.half_width for i in found]),
        "pairs": median([float(i.pairs) for i in found]),
        "worst_error": max(abs(i.ratio / truth - 1) for i in found),
    }


if __name__ == "__main__":
    main()
