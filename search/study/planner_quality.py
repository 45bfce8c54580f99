"""What plans from outside do to a search, good and bad: `python -m diffopt.search.study.planner_quality`.

A planner is scripted in three qualities and put before the same search: an expert, who proposes what knows the field; a
mediocre one, whose plans are random legal programs; an adversarial one, who knows the truth and proposes the slowest
programs there are, illegal ones, and the same ones twice.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from xdsl.dialects.builtin import ModuleOp

from diffopt.bench.device import environment
from diffopt.passes.pipeline import Trace
from diffopt.search.records import Proposer, Trial
from diffopt.search.repair import repair
from diffopt.search.space import Legal, Steps
from diffopt.search.study.methods import searched
from diffopt.search.study.problem import needed, reached
from diffopt.search.study.synthetic import Synthetic
from diffopt.search.variation import fresh

RESULTS = Path(__file__).resolve().parents[2] / "bench" / "results" / "planner-quality-synthetic.json"
PLANS = 8
DRAWS = 200
"""Random programs among which the adversarial planner picks the worst."""


class Listed:
    """Proposes what it was given."""

    def __init__(self, name: str, traces: Sequence[Trace]) -> None:
        self.name, self._traces = name, list(traces)

    def propose(self, module: ModuleOp, history: Sequence[Trial], count: int) -> list[Trace]:
        """See `Proposer`."""
        return self._traces[:count]


def planners(problem: Synthetic, seed: int) -> dict[str, tuple[Proposer, ...]]:
    """Return the arms of the study: nobody, and the three planners."""
    rng = np.random.default_rng([seed, 77])
    drawn = _random_legal(problem, rng, DRAWS)
    worst = sorted(drawn, key=lambda steps: problem.effect(steps)[0])[:PLANS]
    illegal = [Trace(tuple(reversed(steps))) for steps in drawn if len(steps) > 1]
    refused = [trace for trace in illegal if not isinstance(problem.check(trace.passes), Legal)][:PLANS]
    return {
        "none": (),
        "expert": tuple(problem.seeds()),
        "mediocre": (Listed("mediocre", [Trace(steps) for steps in drawn[:PLANS]]),),
        "adversarial": (Listed("adversarial", [*refused, *map(Trace, worst), *map(Trace, worst)]),),
    }


def study(seeds: Sequence[int], budget: int) -> dict[str, Any]:
    """Return, for each arm, the share of the best hypervolume and the measurements it took, problem by problem."""
    names = ("none", "none again", "expert", "mediocre", "adversarial")
    shares: dict[str, list[float]] = {name: [] for name in names}
    counts: dict[str, list[int]] = {name: [] for name in names}
    illegal = 0
    for seed in seeds:
        problem = Synthetic(seed=seed)
        reference = problem.reference()
        arms = planners(problem, seed)
        # The same search from another seed says how far two runs differ by chance.
        runs = {name: searched(problem, budget, seed, arms.get(name, ())) for name in names if name != "none again"}
        runs["none again"] = searched(problem, budget, seed + 10_000, ())
        (target,) = reached(problem, runs["none"], (budget,), reference)
        for name in names:
            trials = runs[name]
            shares[name] += reached(problem, trials, (budget,), reference)
            counts[name].append(needed(problem, trials, 0.9 * target, reference) or budget + 1)
            illegal += sum(
                not isinstance(problem.check(problem.parse(t.candidate.trace).passes), Legal) for t in trials
            )
    none = np.array(shares["none"])
    noise = float(np.std(np.array(shares["none again"]) - none, ddof=1)) if len(none) > 1 else 0.0
    return {
        "share": {name: round(float(np.mean(values)), 4) for name, values in shares.items()},
        "share less that of none": {
            name: [round(float(value), 4) for value in _interval(np.array(values) - none)]
            for name, values in shares.items()
        },
        "noise of one run": round(noise, 4),
        "measurements to nine tenths of what none has in the end": {
            name: round(float(np.mean(values)), 2) for name, values in counts.items()
        },
        "illegal programs measured": illegal,
    }


def _random_legal(problem: Synthetic, rng: np.random.Generator, count: int) -> list[Steps]:
    found: dict[str, Steps] = {}
    for _ in range(20 * count):
        drawn = fresh(problem.space, rng)
        steps = repair(drawn, problem.space, rng) if drawn else None
        if steps is not None and isinstance(legal := problem.check(steps), Legal):
            found.setdefault(legal.key, steps)
        if len(found) == count:
            break
    return list(found.values())


def _interval(differences: Any) -> tuple[float, float, float]:
    """Return mean and bootstrap 95 % interval."""
    rng = np.random.default_rng(0)
    means = rng.choice(differences, size=(2000, len(differences))).mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(np.mean(differences)), float(low), float(high)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study and write its table."""
    parser = argparse.ArgumentParser(prog="python -m diffopt.search.study.planner_quality", description=__doc__)
    parser.add_argument("--problems", type=int, default=8)
    parser.add_argument("--budget", type=int, default=28, help="measurements a run")
    parser.add_argument("-o", "--out", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    command = f"python -m diffopt.search.study.planner_quality --problems {given.problems} --budget {given.budget}"
    found = {"command": command, "environment": environment(), **study(range(given.problems), given.budget)}
    given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
