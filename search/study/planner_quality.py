"""What plans from outside do to a search, good and bad: `python -m diffopt.search.study.planner_quality [LANDSCAPE]`.

A planner is scripted in three qualities and put before the same search: an expert, who proposes what knows the field; a
mediocre one, whose plans are random legal programs; an adversarial one, who knows the truth and proposes the slowest
programs there are, illegal ones, and the same ones twice. The last arms put it beside the rules, as a run does.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffopt.bench.device import environment
from diffopt.passes.pipeline import Trace
from diffopt.search.goals import measured
from diffopt.search.presets import Listed
from diffopt.search.records import Candidate, Proposer, Trial
from diffopt.search.repair import repair
from diffopt.search.space import Legal, Steps
from diffopt.search.study.methods import searched
from diffopt.search.study.problem import Problem, needed, reached
from diffopt.search.study.replay import problem_of
from diffopt.search.variation import fresh

RESULTS = Path(__file__).resolve().parents[2] / "bench" / "results"
PLANS = 8
DRAWS = 200
"""Random programs among which the adversarial planner picks the worst."""
NONE_RUNS = 3
"""Searches without plans, from seeds of their own, whose mean the arms are compared with."""
OUTSIDE = frozenset({"expert", "mediocre", "adversarial"})


def _plans(name: str, traces: Sequence[Trace]) -> Listed:
    return Listed(traces, name, outside=True)


def planners(problem: Problem, seed: int) -> dict[str, tuple[Proposer, ...]]:
    """Return the arms of the study: nobody, the three planners, and the rules alone and beside the worst of them."""
    rng = np.random.default_rng([seed, 77])
    drawn = _random_legal(problem, rng, DRAWS)
    worst = sorted(drawn, key=lambda steps: _latency(problem, steps), reverse=True)[:PLANS]
    illegal = [Trace(tuple(reversed(steps))) for steps in drawn if len(steps) > 1]
    refused = [trace for trace in illegal if not isinstance(problem.space.check(trace.passes), Legal)][:PLANS]
    known = [trace for proposer in problem.seeds() for trace in proposer.propose(problem.module, (), PLANS)]
    adversarial = _plans("adversarial", [*refused, *map(Trace, worst), *map(Trace, worst)])
    return {
        "none": (),
        "expert": (_plans("expert", known),),
        "mediocre": (_plans("mediocre", [Trace(steps) for steps in drawn[:PLANS]]),),
        "adversarial": (adversarial,),
        "rules": tuple(problem.seeds()),
        "rules and adversarial": (adversarial, *problem.seeds()),
    }


def study(made: Callable[[int], Problem], seeds: Sequence[int], budgets: Sequence[int]) -> dict[str, Any]:
    """Return, for each arm, what share of the best hypervolume it has after so many measurements, and what it took.

    Args:
        made: gives the problem of a seed.
        budgets: ascending; a search does not know its budget, so the shorter is the beginning of the longer.
    """
    shares: dict[str, list[list[float]]] = {}
    counts: dict[str, list[float]] = {}
    given: dict[str, list[int]] = {}
    illegal = 0
    for seed in seeds:
        problem = made(seed)
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
                not isinstance(problem.space.check(problem.space.parse(t.candidate.trace).passes), Legal)
                for t in trials
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


def _needed(problem: Problem, trials: Sequence[Trial], target: float, reference: float) -> int:
    return needed(problem, trials, target, reference) or len(trials) + 1


def _random_legal(problem: Problem, rng: np.random.Generator, count: int) -> list[Steps]:
    found: dict[str, Steps] = {}
    for _ in range(20 * count):
        drawn = fresh(problem.space, rng)
        steps = repair(drawn, problem.space, rng) if drawn else None
        if steps is not None and isinstance(legal := problem.space.check(steps), Legal):
            found.setdefault(legal.key, steps)
        if len(found) == count:
            break
    return list(found.values())


def _latency(problem: Problem, steps: Steps) -> float:
    legal = problem.space.check(steps)
    assert isinstance(legal, Legal)
    candidate = Candidate(0, str(Trace(steps)), legal.key, "")
    trial = Trial(candidate, problem.evaluate(candidate))
    return float(problem.truth(trial)[0]) if measured(trial) is not None else math.inf


def _interval(differences: Any) -> tuple[float, float, float]:
    """Return mean and bootstrap 95 % interval."""
    rng = np.random.default_rng(0)
    means = rng.choice(differences, size=(2000, len(differences))).mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(np.mean(differences)), float(low), float(high)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study and write its table."""
    parser = argparse.ArgumentParser(prog="python -m diffopt.search.study.planner_quality", description=__doc__)
    parser.add_argument("problem", nargs="?", default="synthetic", help="`synthetic`, or a recorded landscape's file")
    parser.add_argument("--first", type=int, default=0, help="the first seed: of the problem, or of the search alone")
    parser.add_argument("--problems", type=int, default=24, help="so many seeds")
    parser.add_argument("--budgets", type=int, nargs="+", default=[10, 14, 28], help="measurements a run")
    parser.add_argument("-o", "--out", type=Path, help="the result")
    given = parser.parse_args(arguments)
    budgets = sorted(given.budgets)
    command = f"python -m diffopt.search.study.planner_quality {given.problem}"
    command += f" --first {given.first} --problems {given.problems} --budgets {' '.join(map(str, budgets))}"
    found = study(problem_of(given.problem), range(given.first, given.first + given.problems), budgets)
    found = {"command": command, "environment": environment(), **found}
    out = given.out or RESULTS / f"planner-quality-{Path(given.problem).stem}.json"
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({name: value for name, value in found.items() if name != "environment"}, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
