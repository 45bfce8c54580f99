"""The last part of a run: winners and control arms on held-out prompts, and the one that becomes the artifact."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from xdsl.dialects.builtin import ModuleOp

from diffopt.bench.evaluate import Measured, Outcome
from diffopt.ir.dialect import steps_of
from diffopt.passes.base import Refusal
from diffopt.passes.pipeline import Trace, build_pass, run
from diffopt.search.goals import LEVELS, Constraints, Level, violation, winners
from diffopt.search.records import Candidate, Trial

CHANCES = 3
"""How many of a level's candidates are tried on held-out prompts before the level counts as not reached."""

Judge = Callable[[str], Outcome]
"""Measures a trace on the held-out prompts."""


@dataclass(frozen=True)
class Final:
    """What stands at a level in the end."""

    level: Level
    candidate: Candidate | None
    outcome: Outcome | None


@dataclass(frozen=True)
class Control:
    """A control arm: what anyone would try first."""

    name: str
    trace: str
    outcome: Outcome


def decide_levels(
    trials: Sequence[Trial], constraints: Constraints, judge: Judge, levels: Sequence[Level] = LEVELS
) -> tuple[Final, ...]:
    """Measure each level's winner on held-out prompts; where it misses the level there, the next best gets its chance."""
    finals = []
    for level in levels:
        left, final = list(trials), Final(level, None, None)
        for _ in range(CHANCES):
            best = winners(left, (level,), constraints).get(level.name)
            if best is None:
                break
            outcome = judge(best.candidate.trace)
            final = Final(level, best.candidate, outcome)
            if holds(level.constraints, outcome, best.candidate):
                break
            left = [trial for trial in left if trial.candidate.id != best.candidate.id]
        finals.append(final)
    return tuple(finals)


def choose(finals: Sequence[Final], goal: Constraints) -> Final | None:
    """Return the final with the best lower end of the speed-up interval among those that meet the user's goal."""
    fit = [f for f in finals if f.candidate is not None and holds(goal, f.outcome, f.candidate)]
    return max(fit, key=_lower_end, default=None)


def holds(constraints: Constraints, outcome: Outcome | None, candidate: Candidate) -> bool:
    """Say whether a measured outcome meets the constraints."""
    return isinstance(outcome, Measured) and violation(constraints, outcome, candidate.facts) == 0


def control_traces(module: ModuleOp, ratio: float) -> dict[str, str]:
    """Return the control arms: the user's own sampler with as few steps as take equal time, and stock torch.compile.

    Args:
        ratio: speed-up of the program they are compared with.
    """
    steps = steps_of(module)
    fewer = build_pass("reduce-steps", {"steps": min(max(1, round(steps / ratio)), steps - 1), "solver": "own"})
    arms = {"fewer steps at equal time": Trace((fewer,)), "stock torch.compile": Trace((build_pass("compile", {}),))}
    return {name: str(trace) for name, trace in arms.items() if not isinstance(run(trace, module), Refusal)}


def _lower_end(final: Final) -> float:
    return final.outcome.latency.lo if isinstance(final.outcome, Measured) else 0.0
