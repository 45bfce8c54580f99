"""What plans from outside do to a search, good and bad: `python -m diffopt.search.study.planner_quality`.

A planner is scripted in three qualities and put before the same search: an expert, who proposes what knows the field; a
mediocre one, whose plans are random legal programs; an adversarial one, who knows the truth and proposes the slowest
programs there are, illegal ones, and the same ones twice. The last arms put it beside the rules, as a run does.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
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
NONE_RUNS = 3
"""Searches without plans, from seeds of their own, whose mean the arms are compared with."""
OUTSIDE = frozenset({"expert", "mediocre", "adversarial"})


class Listed:
    """Proposes what it was given; from outside, as a language model does."""

    outside = True

    def __init__(self, name: str, traces: Sequence[Trace]) -> None:
        self.name, self._traces = name, list(traces)

    def propose(self, module: ModuleOp, history: Sequence[Trial], count: int) -> list[Trace]:
        """See `Proposer`."""
        return self._traces[:count]


def planners(problem: Synthetic, seed: int) -> dict[str, tuple[Proposer, ...]]:
    """Return the arms of the study: nobody, the three planners, and the rules alone and beside the worst of them."""
    rng = np.random.default_rng([seed, 77])
    drawn = _random_legal(problem, rng, DRAWS)
    worst = sorted(drawn, key=lambda steps: problem.effect(steps)[0])[:PLANS]
    illegal = [Trace(tuple(reversed(steps))) for steps in drawn if len(steps) > 1]
    refused = [trace for trace in illegal if not isinstance(problem.check(trace.passes), Legal)][:PLANS]
    known = [trace for proposer in problem.seeds() for trace in proposer.propose(problem.module, (), PLANS)]
    adversarial = Listed("adversarial", [*refused, *map(Trace, worst), *map(Trace, worst)])
    return {
        "none": (),
        "expert": (Listed("expert", known),),
        "mediocre": (Listed("mediocre", [Trace(steps) for steps in drawn[:PLANS]]),),
        "adversarial": (adversarial,),
        "rules": tuple(problem.seeds()),
        "rules and adversarial": (adversarial, *problem.seeds()),
    }


def study(seeds: Sequence[int], budgets: Sequence[int]) -> dict[str, Any]:
    """Return, for each arm, what share of the best hypervolume it has after so many measurements, and what it took.

    Args:
        budgets: ascending; a search does not know its budget, so the shorter is the beginning of the longer.
    """
    shares: dict[str, list[list[float]]] = {}
    counts: dict[str, list[float]] = {}
    given: dict[str, list[int]] = {}
    illegal = 0
    for seed in seeds:
        problem = Synthetic(seed=seed)
        reference = problem.reference()
        arms = planners(problem, seed)
        # The same search from other seeds says how far runs differ by chance.
        none = [searched(problem, budgets[-1], seed + 10_000 * n, ()) for n in range(NONE_RUNS)]
        runs = {"none, one run more": searched(problem, budgets[-1], seed + 10_000 * NONE_RUNS, ())}
        runs |= {name: searched(problem, budgets[-1], seed, arm) for name, arm in arms.items() if arm}
        usual = np.mean([reached(problem, run, budgets, reference) for run in none], axis=0)
        target = 0.9 * float(usual[-1])
        shares.setdefault("none", []).append(usual.tolist())
        counts.setdefault("none", []).append(float(np.mean([_needed(problem, r, target, reference) for r in none])))
        for name, trials in runs.items():
            shares.setdefault(name, []).append(reached(problem, trials, budgets, reference))
            counts.setdefault(name, []).append(_needed(problem, trials, target, reference))
            given.setdefault(name, []).append(sum(t.candidate.origin in OUTSIDE for t in trials[: budgets[0]]))
            illegal += sum(
                not isinstance(problem.check(problem.parse(t.candidate.trace).passes), Legal) for t in trials
            )
    return {
        "budgets": list(budgets),
        "share": {name: np.round(np.mean(values, axis=0), 4).tolist() for name, values in shares.items()},
        "share less that of none": _less("none", shares, [name for name in shares if name != "none"]),
        "share less that of rules": _less("rules", shares, ["rules and adversarial"]),
        "noise of one run": np.round(
            np.std(np.array(shares["none, one run more"]) - np.array(shares["none"]), axis=0, ddof=1), 4
        ).tolist(),
        "measurements to nine tenths of what none has in the end": {
            name: round(float(np.mean(values)), 2) for name, values in counts.items()
        },
        "measurements more than none": {
            name: [round(float(v), 2) for v in _interval(np.array(values) - np.array(counts["none"]))]
            for name, values in counts.items()
        },
        f"plans among the first {budgets[0]}": {name: round(float(np.mean(v)), 2) for name, v in given.items()},
        "illegal programs measured": illegal,
    }


def _less(of: str, shares: Mapping[str, list[list[float]]], names: Sequence[str]) -> dict[str, list[list[float]]]:
    """Return mean and interval of the differences from an arm, a budget a row."""
    base = np.array(shares[of])
    return {
        name: [[round(float(v), 4) for v in _interval(column)] for column in (np.array(shares[name]) - base).T]
        for name in names
    }


def _needed(problem: Synthetic, trials: Sequence[Trial], target: float, reference: float) -> int:
    return needed(problem, trials, target, reference) or len(trials) + 1


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
    parser.add_argument("--first", type=int, default=0, help="seed of the first problem")
    parser.add_argument("--problems", type=int, default=24)
    parser.add_argument("--budgets", type=int, nargs="+", default=[10, 14, 28], help="measurements a run")
    parser.add_argument("-o", "--out", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    budgets = sorted(given.budgets)
    command = "python -m diffopt.search.study.planner_quality"
    command += f" --first {given.first} --problems {given.problems} --budgets {' '.join(map(str, budgets))}"
    found = study(range(given.first, given.first + given.problems), budgets)
    found = {"command": command, "environment": environment(), **found}
    given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({name: value for name, value in found.items() if name != "environment"}, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
