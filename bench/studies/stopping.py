"""What intervals are worth when the race ends as soon as they are narrow: `python -m diffopt.bench.studies.stopping`.

Ratios of known truth with noise of several shapes are raced through the real intervals and the real rule for stopping,
and the share of intervals that hold the truth is told, for the plain interval of 95 % and for the one of a race.
Simulated: it depends on no machine. Takes some minutes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from diffopt.bench.statistics import Interval, paired_ratio, stop_reason

RESULTS = Path(__file__).resolve().parents[1] / "results" / "stopping.json"
FEWEST, MOST, TRIALS = 5, 30, 500
Floats = npt.NDArray[np.float64]


def _bursts(rng: np.random.Generator, count: int) -> Floats:
    loaded = np.repeat(rng.random((count + 4) // 5) < 0.3, 5)[:count]
    return np.where(loaded, rng.normal(0, 0.12, count), rng.normal(0, 0.012, count))


NOISE: dict[str, Callable[[np.random.Generator, int], Floats]] = {
    "normal, 2 %": lambda rng, count: rng.normal(0, 0.02, count),
    "normal, 4 %": lambda rng, count: rng.normal(0, 0.04, count),
    "Laplace, 2 %": lambda rng, count: rng.laplace(0, 0.02, count),
    "Student t with 3 degrees, 2 %": lambda rng, count: 0.02 * rng.standard_t(3, count),
    "1 % with bursts of 12 %": _bursts,
}


def raced(ratios: Floats, rng: np.random.Generator, *, stopping: bool) -> Interval:
    """Return the interval at which a race over these ratios would have ended."""
    ones = np.ones(len(ratios))
    for count in range(FEWEST, MOST + 1):
        interval = paired_ratio(ratios[:count].tolist(), ones[:count].tolist(), rng=rng, stopping=stopping)
        if stop_reason(interval, pairs=(FEWEST, MOST)):
            break
    return interval


def main() -> None:
    """Simulate, print, and write the results."""
    rng, rows = np.random.default_rng(7), []
    for name, noise in NOISE.items():
        for stopping in (False, True):
            found = [raced(np.exp(noise(rng, MOST)), rng, stopping=stopping) for _ in range(TRIALS)]
            row: dict[str, Any] = {
                "noise": name,
                "interval": "of a race" if stopping else "plain",
                "covered": sum(not interval.excludes(1.0) for interval in found) / TRIALS,
                "faster": sum(interval.lo > 1.0 for interval in found) / TRIALS,
                "pairs": float(np.median([interval.pairs for interval in found])),
            }
            rows.append(row)
            print(json.dumps(row), flush=True)
    study = {"command": "python -m diffopt.bench.studies.stopping", "trials": TRIALS, "rows": rows}
    RESULTS.write_text(json.dumps(study, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
