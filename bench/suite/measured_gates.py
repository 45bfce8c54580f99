"""The second and third gate: what an answer's images show, and what they lost and gained against the baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from diffopt.bench.outcome import Failed, Measured, outcome_from_json
from diffopt.bench.suite.harness import DRAWS, STEPS
from diffopt.bench.suite.static_gate import Verdict
from diffopt.bench.suite.task import FACTORS, Task

ADHERENCE = 0.9
"""The least mean share of what held-out prompts ask for that images show; the baselines reach 0.97 and more."""

RESAMPLES = 2000
PREPARED_CALLS = 2
"""Calls before the witnesses are asked; see `Evaluator._measure`."""


@dataclass(frozen=True)
class Estimate:
    """A value with its bootstrap 95 % interval."""

    value: float
    lo: float
    hi: float

    def to_json(self) -> list[float]:
        """Return plain JSON data, rounded to five digits."""
        return [round(part, 5) for part in (self.value, self.lo, self.hi)]


def absolute_gate(record: Mapping[str, Any]) -> Verdict:
    """Ask that the program runs and that its images show what held-out prompts ask for."""
    outcome = outcome_from_json(record["outcome"])
    if isinstance(outcome, Failed):
        error = {"numerics": "absolute quality", "protocol": "protocol"}.get(outcome.kind, "compile")
        return Verdict(False, error, (f"{outcome.kind}: {outcome.message}",))
    shown = float(np.mean(record["adherence"]["candidate"]))
    if shown < ADHERENCE:
        reason = f"{100 * shown:.0f} % of what prompts ask for is shown, at least {100 * ADHERENCE:.0f} are asked for"
        return Verdict(False, "absolute quality", (reason,))
    return Verdict(True)


def relative_gate(task: Task, record: Mapping[str, Any], required: float | None = None) -> Verdict:
    """Compare with the rebuilt baseline: what was declared was done, the loss is bounded, the target is met.

    Args:
        required: for levels 4 and 5, the speed-up that is asked for, or the latency in seconds.
    """
    outcome = outcome_from_json(record["outcome"])
    if not isinstance(outcome, Measured):
        return Verdict(False, "compile", ("it was not measured",))
    declared = _declared(task, outcome) if task.level < 4 else []
    if declared:
        return Verdict(False, "key attributes", tuple(declared))
    loss = quality_loss(record)
    bound = task.target.quality_loss if task.target is not None else 0.05
    reasons = _changed(outcome) if task.level == 1 else []
    if loss.value > bound:
        text = f"{100 * loss.value:.1f} % of adherence lost [{100 * loss.lo:.1f}, {100 * loss.hi:.1f}]"
        reasons.append(f"{text}, at most {100 * bound:g} are allowed")
    if reasons:
        return Verdict(False, "relative quality", tuple(reasons))
    if task.target is None or required is None:
        return Verdict(True)
    reached = speedup(outcome) if task.target.metric == "speedup" else latency(outcome)
    met = reached.value >= required if task.target.metric == "speedup" else reached.value <= required
    if not met:
        unit = "times as fast" if task.target.metric == "speedup" else "s"
        text = f"{reached.value:.3g} {unit} [{reached.lo:.3g}, {reached.hi:.3g}], asked for {required:.3g}"
        return Verdict(False, "relative speed", (text,))
    return Verdict(True)


def _declared(task: Task, outcome: Measured) -> list[str]:
    """Say what the code declares and the measured process did not do."""
    counts = {str(witness["transform"]): witness["count"] for witness in outcome.witnesses}
    steps, taken, drawn = int(task.expected()["steps"]), counts.pop(STEPS, 0), counts.pop(DRAWS, 0)
    reasons = []
    if taken != PREPARED_CALLS * steps:
        reasons.append(f"{taken} steps of its scheduler in {PREPARED_CALLS} calls, {steps} a call are declared")
    if drawn != PREPARED_CALLS:
        reasons.append(f"{drawn} of {PREPARED_CALLS} calls drew from the generator they were given")
    return reasons + [f"{name} did nothing" for name, count in counts.items() if not count]


def _changed(outcome: Measured) -> list[str]:
    """Say how the images differ from the baseline's, where nothing was to be changed."""
    if outcome.tier == "exact":
        return []
    noise = outcome.fidelity.psnr_median
    return [f"nothing was to be changed, but images are `{outcome.tier}`, {noise:.1f} dB in the median"]


def quality_loss(record: Mapping[str, Any]) -> Estimate:
    """Return L = mean(S_base - S_acc) / mean(S_base), S being an image's share of what its prompt asks for."""
    base, made = (np.asarray(record["adherence"][side], dtype=np.float64) for side in ("baseline", "candidate"))

    def loss(rows: Any) -> Any:
        return 1 - made[rows].mean(axis=-1) / np.maximum(base[rows].mean(axis=-1), 1e-9)

    draws = np.random.default_rng(0).integers(len(base), size=(RESAMPLES, len(base)))
    lo, hi = np.percentile(loss(draws), [2.5, 97.5])
    return Estimate(float(loss(np.arange(len(base)))), float(lo), float(hi))


def lost(record: Mapping[str, Any]) -> float:
    """Return the estimate of `quality_loss` alone, without its interval."""
    base, made = (float(np.mean(record["adherence"][side])) for side in ("baseline", "candidate"))
    return 1 - made / max(base, 1e-9)


def speedup(outcome: Measured) -> Estimate:
    """Return U, the time of the baseline's call divided by the answer's, over interleaved pairs."""
    return Estimate(outcome.latency.ratio, outcome.latency.lo, outcome.latency.hi)


def latency(outcome: Measured) -> Estimate:
    """Return the median seconds of a call."""
    times = np.asarray(outcome.latency.candidate_s)
    draws = np.random.default_rng(0).integers(len(times), size=(RESAMPLES, len(times)))
    lo, hi = np.percentile(np.median(times[draws], axis=1), [2.5, 97.5])
    return Estimate(median(outcome.latency.candidate_s), float(lo), float(hi))


def required_of(task: Task, best: Mapping[str, float] | None) -> float | None:
    """Return what a task of level 4 or 5 asks for, from a search's best of its baseline; None where there was no search.

    best: `speedup` and `latency_s` that a search of 50 candidates reached within the bound of quality.
    """
    if task.target is None or best is None:
        return None
    factor = FACTORS[task.target.difficulty]
    return best["speedup"] * factor if task.target.metric == "speedup" else best["latency_s"] / factor


def at_pace(required: float, task: Task, best: Mapping[str, float], outcome: Measured) -> float:
    """Return a required latency as it is in the state that the machine was in while the answer was measured.

    These machines change their pace by a quarter for minutes: the baseline's calls, timed between the answer's, tell it.
    """
    if task.target is None or task.target.metric == "speedup" or "baseline_s" not in best:
        return required
    return required * median(outcome.latency.baseline_s) / best["baseline_s"]


def achievement(task: Task, outcome: Measured, required: float) -> float:
    """Return S_a of one task: min(U / U_req, 1); of latencies, the same quotient the other way up."""
    if task.target is not None and task.target.metric == "latency":
        return min(required / latency(outcome).value, 1.0)
    return min(speedup(outcome).value / required, 1.0)
