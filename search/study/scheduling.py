"""A search's scheduler at 1 to 1,000 workers, simulated: `python -m diffopt.search.study.scheduling`.

The driver asks and tells one candidate after another; workers measure. Times are those of the parts as measured here:
asking, telling and the round trip of a task; measurements are drawn around a mean. What the driver cannot feed stands
idle. Written to bench/results/scheduling.json.
"""

from __future__ import annotations

import argparse
import heapq
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).resolve().parents[2] / "bench" / "results" / "scheduling.json"
WORKERS = (1, 10, 100, 1000)


@dataclass(frozen=True)
class Costs:
    """Seconds that parts of a measurement take.

    Args:
        ask: the driver's, to choose a candidate; asking for several at once divides what all share.
        shared: part of `ask` that a batch needs only once: reading the history and fitting the surrogate.
        tell: the driver's, to write an outcome down.
        trip: of a task to a worker and back.
        measure: mean of a measurement; its spread is a third of it.
        lost: share of measurements whose worker dies, and is replaced in `restart`.
    """

    ask: float = 0.2
    shared: float = 0.1
    tell: float = 0.003
    trip: float = 0.02
    measure: float = 30.0
    lost: float = 0.001
    restart: float = 60.0


@dataclass(frozen=True)
class Simulated:
    """What a number of workers gives."""

    workers: int
    batch: int
    measurements_per_hour: float
    busy: float
    driver_busy: float
    stale: float


def simulate(workers: int, costs: Costs, *, count: int, batch: int = 1, seed: int = 0) -> Simulated:
    """Run a scheduler for `count` measurements.

    Args:
        batch: candidates asked for at once.

    Returns:
        Share of the workers' time spent measuring, of the driver's spent asking and telling, and how many measurements
        a choice does not know of yet, on average: those in flight.
    """
    rng = np.random.default_rng(seed)
    driver, told, asked, worked, driven = 0.0, 0, 0, 0.0, 0.0
    idle = [(0.0, number) for number in range(workers)]
    heapq.heapify(idle)
    flying: list[tuple[float, int]] = []
    in_flight = 0.0
    while told < count:
        wanted = min(batch, len(idle), count - asked)
        ready = bool(idle) and idle[0][0] <= driver
        if wanted and (ready or not flying):
            driver = max(driver, idle[0][0])
            spent = costs.shared + (costs.ask - costs.shared) * wanted
            driver, driven = driver + spent, driven + spent
            for _ in range(wanted):
                _, worker = heapq.heappop(idle)
                seconds = max(costs.measure * (1 + rng.normal() / 3), costs.measure / 10)
                worked += seconds
                if rng.random() < costs.lost:
                    seconds += costs.restart + seconds * rng.random()
                heapq.heappush(flying, (driver + costs.trip + seconds, worker))
                asked += 1
                in_flight += len(flying)
            continue
        end, worker = heapq.heappop(flying)
        driver = max(driver, end) + costs.tell
        driven += costs.tell
        told += 1
        heapq.heappush(idle, (driver, worker))
    return Simulated(
        workers, batch, round(count / driver * 3600, 1), round(worked / (workers * driver), 4), round(driven / driver, 4),
        round(in_flight / asked, 1),
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Simulate and write the table."""
    parser = argparse.ArgumentParser(prog="python -m diffopt.search.study.scheduling", description=__doc__)
    parser.add_argument("--measure", type=float, default=30.0, help="mean seconds of a measurement")
    parser.add_argument("--per-worker", type=int, default=30, help="measurements a worker")
    parser.add_argument("-o", "--out", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    costs = Costs(measure=given.measure)
    rows = [
        simulate(workers, costs, count=workers * given.per_worker, batch=batch)
        for workers in WORKERS
        for batch in (1, 32)
        if batch == 1 or workers >= batch
    ]
    table = {
        "command": f"python -m diffopt.search.study.scheduling --measure {given.measure:g} --per-worker {given.per_worker}",
        "costs": asdict(costs),
        "rows": [asdict(row) for row in rows],
    }
    given.out.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    for row in rows:
        print(f"{row.workers:5} workers, {row.batch:2} at once: {row.measurements_per_hour:9.0f} an hour,"
              f" workers busy {row.busy:5.1%}, driver {row.driver_busy:5.1%}, {row.stale:.0f} in flight")  # fmt: skip
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
