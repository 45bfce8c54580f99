"""The last part of a run: winners and control arms on held-out prompts, and the one that becomes the artifact."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from xdsl.dialects.builtin import ModuleOp

from diffopt.bench.evaluate import Measured, Outcome
from diffopt.ir.dialect import steps_of
from diffopt.ir.identity import module_hash
from diffopt.passes.base import Refusal
from diffopt.passes.pipeline import Trace, build_pass, run
from diffopt.search.goals import LEVELS, PSNR_CEILING_DB, Constraints, Level, merit, shortfalls, violation, winners
from diffopt.search.presets import SAFE
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


def fallback(module: ModuleOp, goal: Constraints, judge: Judge, device: str) -> Final | None:
    """Try what changes least, where nothing of the search meets the goal on held-out prompts.

    A small budget may go to bold candidates alone; an engine in full precision keeps the images almost to the bit.
    """
    for text in SAFE[device.split(":")[0]]:
        trace = Trace.parse(text)
        rewritten = run(trace, module)
        if isinstance(rewritten, Refusal):
            continue
        candidate = Candidate(0, str(trace), module_hash(rewritten), "fallback", {"steps_kept": 1.0})
        final = Final(Level("fallback", goal), candidate, judge(candidate.trace))
        if holds(goal, final.outcome, candidate):
            return final
    return None


def closest(
    finals: Sequence[Final], trials: Sequence[Trial], goal: Constraints, count: int = 3
) -> tuple[tuple[Candidate, Measured, tuple[str, ...]], ...]:
    """Return what came nearest to the goal, nearest first, each with what it misses; held-out outcomes go before."""
    known = {t.candidate.key: (t.candidate, t.outcome) for t in trials}
    known |= {f.candidate.key: (f.candidate, f.outcome) for f in finals if f.candidate and f.outcome}
    missed = [(c, o, shortfalls(goal, o, c.facts)) for c, o in known.values() if isinstance(o, Measured)]
    missed.sort(key=lambda entry: (violation(goal, entry[1], entry[0].facts), -entry[1].latency.lo))
    return tuple(missed[:count])


def choose(finals: Sequence[Final], goal: Constraints) -> Final | None:
    """Return the best final, by `goals.merit`, among those that meet the user's goal."""
    fit = [f for f in finals if f.candidate is not None and holds(goal, f.outcome, f.candidate)]
    return max(fit, key=lambda final: _merit(final, goal), default=None)


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


def prefixes(trace: Trace, module: ModuleOp) -> tuple[Trace, ...]:
    """Return the proper beginnings of a trace that are programs of their own, shortest first."""
    found = (Trace(trace.passes[:count]) for count in range(1, len(trace)))
    return tuple(prefix for prefix in found if not isinstance(run(prefix, module), Refusal))


def bought(outcome: Outcome) -> str:
    """Say what the passes up to one come to together, as `3.8x, 52.1 dB`; empty for a program that does not run."""
    if not isinstance(outcome, Measured):
        return ""
    psnr = outcome.fidelity.psnr_median
    same = "the same images" if psnr >= PSNR_CEILING_DB else f"{psnr:.1f} dB"
    return f"{outcome.latency.ratio:.3g}x, {same}"


def _merit(final: Final, goal: Constraints) -> tuple[float, float]:
    return merit(final.outcome, goal) if isinstance(final.outcome, Measured) else (0.0, 0.0)
