"""Whether many workers find as good a front as one with as many measurements: `python -m diffopt.search.study.workers`.

The loop, the engine and the store are diffopt's own; workers take pretended time, of which no second passes: a measurement
that was asked for before another may end after it, so choices are made while others are not known yet. Every run is a line
of a file beside the result, so a study that was stopped goes on where it was. Written to bench/results/search-workers.json.
"""

from __future__ import annotations

import argparse
import heapq
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffopt.bench.device import environment
from diffopt.bench.outcome import Outcome
from diffopt.search.budget import Budget
from diffopt.search.engine import Engine, Settings
from diffopt.search.loop import search
from diffopt.search.records import Candidate, Trial
from diffopt.search.store import MEMORY, Store
from diffopt.search.study.problem import Problem, reached
from diffopt.search.study.synthetic import Synthetic

RESULTS = Path(__file__).resolve().parents[2] / "bench" / "results" / "search-workers.json"
WORKERS = (1, 2, 4, 8)
BUDGETS = (10, 20, 28, 60)
MEAN_S, SPREAD_S, SHORTEST_S = 30.0, 10.0, 3.0
FRONT = Settings(levels=())
DRAWS = 4000


class PretendedWorkers:
    """An `Executor` of so many workers whose time is pretended; measurements end in the order of their ends.

    Args:
        seed: of the seconds that each candidate takes.
    """

    def __init__(self, problem: Problem, workers: int, seed: int) -> None:
        self._problem, self._workers, self._rng = problem, workers, np.random.default_rng([seed, 1])
        self._running: list[tuple[float, int, Candidate]] = []
        self.now = 0.0

    @property
    def free(self) -> bool:
        """See `Executor`."""
        return len(self._running) < self._workers

    def submit(self, candidate: Candidate) -> None:
        """See `Executor`."""
        seconds = max(float(self._rng.normal(MEAN_S, SPREAD_S)), SHORTEST_S)
        heapq.heappush(self._running, (self.now + seconds, candidate.id, candidate))

    def wait(self) -> tuple[Candidate, Outcome]:
        """See `Executor`."""
        self.now, _, candidate = heapq.heappop(self._running)
        return candidate, self._problem.evaluate(candidate)


def searched(problem: Problem, workers: int, count: int, seed: int) -> tuple[list[Trial], float]:
    """Search with so many workers; return the trials in the order of telling, and the pretended seconds."""
    with Store(MEMORY) as store:
        engine = Engine(
            problem.module, store, run_id="study", seed=seed, proposers=problem.seeds(), space=problem.space, settings=FRONT
        )  # fmt: skip
        executor = PretendedWorkers(problem, workers, seed)
        search(engine, executor, Budget(candidates=count, early=False))
        return list(engine.trials()), executor.now


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing and write the table."""
    parser = argparse.ArgumentParser(prog="python -m diffopt.search.study.workers", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--most", type=int, default=60, choices=BUDGETS, help="measurements a run")
    parser.add_argument("--runs", type=Path, help="file with the runs (default: beside the result)")
    parser.add_argument("-o", "--out", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    lines = given.runs or given.out.with_suffix(".runs.jsonl")
    known = _read(lines)
    budgets = [budget for budget in BUDGETS if budget <= given.most]
    for seed in range(given.seeds):
        problem = Synthetic(seed=seed)
        reference = problem.reference()
        for workers in WORKERS:
            if (workers, seed) in known:
                continue
            trials, seconds = searched(problem, workers, given.most, seed)
            share = [round(value, 5) for value in reached(problem, trials, budgets, reference)]
            known[workers, seed] = {"share": share, "seconds": round(seconds, 1)}
            with lines.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"workers": workers, "seed": seed, **known[workers, seed]}) + "\n")
            print(f"seed {seed}, {workers} workers: {share}", file=sys.stderr, flush=True)
    table = {
        "command": f"python -m diffopt.search.study.workers --seeds {given.seeds} --most {given.most}",
        "environment": environment(),
        "budgets": budgets,
        "rows": summary(known, range(given.seeds)),
    }
    given.out.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    for row in table["rows"]:
        print(row)
    return 0


def summary(known: Mapping[tuple[int, int], Mapping[str, Any]], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Return a row for each number of workers: its share, and how much more than one worker's, with a 95 % interval.

    The interval is a bootstrap over seeds of the mean difference, run by run, on the same problem.
    """
    alone = np.array([known[WORKERS[0], seed]["share"] for seed in seeds])
    time = float(np.mean([known[WORKERS[0], seed]["seconds"] for seed in seeds]))
    drawn = np.random.default_rng(0).integers(len(seeds), size=(DRAWS, len(seeds)))
    rows = []
    for workers in sorted({workers for workers, _ in known}):
        runs = [known[workers, seed] for seed in seeds]
        shares = np.array([run["share"] for run in runs])
        more = shares - alone
        low, high = np.percentile(more[drawn].mean(axis=1), [2.5, 97.5], axis=0)
        rows.append(
            {
                "workers": workers,
                "share": shares.mean(axis=0).round(4).tolist(),
                "more than one": more.mean(axis=0).round(4).tolist(),
                "interval": np.stack([low, high], axis=1).round(4).tolist(),
                "times as fast": round(time / float(np.mean([run["seconds"] for run in runs])), 2),
            }
        )
    return rows


def _read(path: Path) -> dict[tuple[int, int], dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    found = [json.loads(line) for line in lines if line]
    return {(run["workers"], run["seed"]): {"share": run["share"], "seconds": run["seconds"]} for run in found}


if __name__ == "__main__":
    raise SystemExit(main())
