"""What stored measurements of one model are worth on another: `python -m diffopt.search.study.transfer`.

Two instances of the synthetic problem share their passes and what is known of them, and differ in all that is hidden. One
is searched; its best programs are proposed on the other. Written to bench/results/search-transfer.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffopt.bench.device import environment
from diffopt.search.archive import ArchiveProposer
from diffopt.search.study.methods import searched
from diffopt.search.study.problem import reached
from diffopt.search.study.rank_sum import p_greater
from diffopt.search.study.synthetic import Synthetic

RESULTS = Path(__file__).resolve().parents[2] / "bench" / "results" / "search-transfer.json"
BUDGETS = (5, 10, 20, 28)


def main(arguments: Sequence[str] | None = None) -> int:
    """Search pairs of problems, with and without what the other gave."""
    parser = argparse.ArgumentParser(prog="python -m diffopt.search.study.transfer", description=__doc__)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--stored", type=int, default=28, help="measurements of the other model")
    parser.add_argument("-o", "--out", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    shares: dict[str, list[list[float]]] = {"without": [], "with": []}
    for seed in range(given.seeds):
        other, problem = Synthetic(seed=500 + seed), Synthetic(seed=seed)
        archive = ArchiveProposer(tuple(searched(other, given.stored, seed, ())), problem)
        reference = problem.reference()
        for name, proposers in (("without", ()), ("with", (archive,))):
            trials = searched(problem, BUDGETS[-1], seed, proposers)
            shares[name].append([round(value, 5) for value in reached(problem, trials, BUDGETS, reference)])
    table: dict[str, Any] = {
        "command": f"python -m diffopt.search.study.transfer --seeds {given.seeds} --stored {given.stored}",
        "environment": environment(),
        "budgets": list(BUDGETS),
        "share": {name: np.mean(rows, axis=0).round(4).tolist() for name, rows in shares.items()},
        "p": [
            p_greater([r[i] for r in shares["with"]], [r[i] for r in shares["without"]]) for i in range(len(BUDGETS))
        ],
        "runs": shares,
    }
    given.out.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    print(table["budgets"], table["share"], table["p"])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
