"""Replay search methods on a problem: `python -m diffopt.search.study.replay synthetic` writes search-synthetic.json.

Every run is a line of a file beside the result, so a study that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from diffopt.bench.device import environment
from diffopt.search.study.landscape import Landscape
from diffopt.search.study.methods import METHODS
from diffopt.search.study.problem import Problem, needed, reached
from diffopt.search.study.rank_sum import p_greater
from diffopt.search.study.rivals import RIVALS
from diffopt.search.study.synthetic import Synthetic

RESULTS = Path(__file__).resolve().parents[2] / "bench" / "results"
BUDGETS = (10, 20, 28, 60, 120)
SHARES = (0.8, 0.9)
ALL = {**METHODS, **RIVALS}
OURS = "ours with seeds"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing and write the table."""
    parser = argparse.ArgumentParser(prog="python -m diffopt.search.study.replay", description=__doc__)
    parser.add_argument("problem", help="`synthetic`, or the file of a recorded landscape")
    parser.add_argument("--seeds", type=int, default=20, help="runs a method")
    parser.add_argument("--first", type=int, default=0, help="the first seed; instances from 1000 on were tuned with")
    parser.add_argument("--longer", type=int, default=0, help="go on to so many measurements, to see who gets there")
    parser.add_argument("--methods", nargs="*", default=list(ALL), choices=list(ALL))
    parser.add_argument("--runs", type=Path, help="file with the runs (default: beside the result)")
    parser.add_argument("-o", "--out", type=Path, help="the result")
    given = parser.parse_args(arguments)
    out = given.out or RESULTS / f"search-{Path(given.problem).stem}.json"
    runs = given.runs or out.with_suffix(".runs.jsonl")
    seeds = range(given.first, given.first + given.seeds)
    made = problem_of(given.problem)
    known = _read(runs)
    for seed in seeds:
        problem = made(seed)
        reference = problem.reference()
        for name in given.methods:
            if (name, seed) not in known:
                known[name, seed] = _run(problem, name, seed, reference, max(given.longer, BUDGETS[-1]))
                with runs.open("a", encoding="utf-8") as lines:
                    lines.write(json.dumps({"method": name, "seed": seed, **known[name, seed]}) + "\n")
    longer = f" --longer {given.longer}" if given.longer else ""
    command = (
        f"python -m diffopt.search.study.replay {given.problem} --seeds {given.seeds} --first {given.first}{longer}"
    )
    table = {
        "command": command,
        "environment": environment(),
        **summary(known, list(given.methods), list(seeds), max(given.longer, BUDGETS[-1])),
    }
    out.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    print("\n".join(lines_of(table)))
    return 0


def summary(
    known: Mapping[tuple[str, int], dict[str, Any]],
    methods: Sequence[str],
    seeds: Sequence[int],
    count: int = BUDGETS[-1],
) -> dict[str, Any]:
    """Return means, medians of measurements needed, and how surely ours is better, by method.

    A run that did not get to a share within its measurements counts as needing more than any other.
    """
    rows: dict[str, Any] = {}
    for name in methods:
        runs = [known[name, seed] for seed in seeds]
        row: dict[str, Any] = {"share": {str(b): _mean([r["share"][i] for r in runs]) for i, b in enumerate(BUDGETS)}}
        for share in SHARES:
            counts = [r["needed"][str(share)] or count + 1 for r in runs]
            row[f"needed for {share}"] = {"median": median(counts), "not within": sum(c > count for c in counts)}
        if name != OURS and OURS in methods:
            ours = [known[OURS, seed]["share"] for seed in seeds]
            theirs = [r["share"] for r in runs]
            row["p"] = {str(b): p_greater([o[i] for o in ours], [t[i] for t in theirs]) for i, b in enumerate(BUDGETS)}
        rows[name] = row
    return {"seeds": list(seeds), "measurements": count, "budgets": list(BUDGETS), "methods": rows}


def lines_of(table: Mapping[str, Any]) -> list[str]:
    """Return the table as text: the share of the reference hypervolume after so many measurements."""
    lines = [f"{'':20}" + "".join(f"{b:>8}" for b in table["budgets"]) + "   needed for 0.9   largest p"]
    for name, row in table["methods"].items():
        need, p = row["needed for 0.9"], max(row.get("p", {"": 0.0}).values())
        text = f"{need['median']:g}" if need["median"] <= table["measurements"] else f"> {table['measurements']}"
        lines.append(f"{name:20}" + "".join(f"{v:8.3f}" for v in row["share"].values()) + f"   {text:>14}   {p:.1e}")
    return lines


def problem_of(text: str) -> Callable[[int], Problem]:
    """Return what gives the problem of a seed: a synthetic one, or a recorded landscape, which is the same for all."""
    if text == "synthetic":
        return lambda seed: Synthetic(seed=seed)
    recorded = Landscape.read(Path(text))
    return lambda seed: recorded


def _run(problem: Problem, name: str, seed: int, reference: float, count: int) -> dict[str, Any]:
    trials = ALL[name](problem, count, seed)
    return {
        "share": [round(value, 5) for value in reached(problem, trials, BUDGETS, reference)],
        "needed": {str(share): needed(problem, trials, share, reference) for share in SHARES},
    }


def _read(path: Path) -> dict[tuple[str, int], dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    found = [json.loads(line) for line in lines if line]
    return {(run["method"], run["seed"]): {"share": run["share"], "needed": run["needed"]} for run in found}


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 4)


if __name__ == "__main__":
    raise SystemExit(main())
