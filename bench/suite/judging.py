"""Put the three gates' verdicts together: for each task, and as the paper's S_p and S_a."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffopt.bench.outcome import Measured, outcome_from_json
from diffopt.bench.suite.arms.rules import answer as ground_truth
from diffopt.bench.suite.arms.rules import baseline
from diffopt.bench.suite.measured_gates import (
    absolute_gate,
    achievement,
    at_pace,
    latency,
    quality_loss,
    relative_gate,
    required_of,
    speedup,
)
from diffopt.bench.suite.results import Results, text_hash
from diffopt.bench.suite.static_gate import FREE, Verdict, static_gate, strict_gate
from diffopt.bench.suite.task import Task

STATUSES = ("passed", "failed", "no answer", "unavailable", "not measured", "no target")
"""`unavailable`: the model has no weights; `no target`: all gates but the speed passed, and no search has set one."""


def judge(task: Task, results: Results) -> dict[str, Any]:
    """Return the verdict on one task from its answer's text and the raw samples alone."""
    code = results.code(task)
    if not code:
        missing = task.about.unavailable()
        reason = missing or results.answers.get(task.id, {}).get("refused", "nothing was handed in")
        return {"status": "unavailable" if missing else "no answer", "reasons": [reason]}
    static = static_gate(task, code)
    found: dict[str, Any] = {"static": _said(static), "strict": _strict(task, code)}
    best = results.targets.get(text_hash(baseline(task)))
    required = required_of(task, best)
    found |= {} if required is None else {"required": required}
    if not static.passed:
        return _failed(found, static)
    if task.about.unavailable():
        return {**found, "status": "unavailable", "reasons": [task.about.unavailable()]}
    record = results.measurement(task, baseline(task))
    if record is None:
        return {**found, "status": "not measured", "reasons": []}
    absolute = absolute_gate(record)
    found["absolute"] = _said(absolute)
    if not absolute.passed:
        return _failed(found, absolute)
    outcome = outcome_from_json(record["outcome"])
    if required is not None and best is not None and isinstance(outcome, Measured):
        required = at_pace(required, task, best, outcome)
        found["required"] = required
    relative = relative_gate(task, record, required)
    found |= {"relative": _said(relative), "figures": _figures(task, record, required)}
    if not relative.passed:
        return _failed(found, relative)
    status = "no target" if task.target is not None and required is None else "passed"
    return {**found, "status": status, "reasons": []}


def _strict(task: Task, code: str) -> bool | None:
    """Judge as the paper does; None where there is no reference solution."""
    if task.level > 3:
        return strict_gate(baseline(task), code, free=FREE).passed
    truth = ground_truth(task).code
    return strict_gate(truth, code).passed if truth else None


def judge_all(tasks: Sequence[Task], results: Results) -> dict[str, dict[str, Any]]:
    """Return the verdicts on tasks, by their names."""
    return {task.id: judge(task, results) for task in tasks}


def _said(verdict: Verdict) -> dict[str, Any]:
    return {"passed": verdict.passed} if verdict.passed else {"passed": False, "reasons": list(verdict.reasons)}


def _failed(found: Mapping[str, Any], verdict: Verdict) -> dict[str, Any]:
    return {**found, "status": "failed", "error": verdict.error, "reasons": list(verdict.reasons)}


def _figures(task: Task, record: Mapping[str, Any], required: float | None) -> dict[str, Any]:
    outcome = outcome_from_json(record["outcome"])
    assert isinstance(outcome, Measured)
    figures: dict[str, Any] = {
        "quality_loss": quality_loss(record).to_json(),
        "speedup": speedup(outcome).to_json(),
        "latency_s": latency(outcome).to_json(),
        "psnr_median": round(outcome.fidelity.psnr_median, 2),
        "tier": outcome.tier,
    }
    if required is not None:
        figures["achieved"] = achievement(task, outcome, required)
    return figures


@dataclass(frozen=True)
class LevelScore:
    """What came of a level: tasks by status, how many pass the static gate in both modes, S_p and S_a.

    pass_rate: passed / judged, those that could be judged being passed, failed or without an answer; None for none.
    achievement: mean of min(U / U_req, 1) over hard tasks with a target, failures counting 0; None for none.
    """

    level: int
    statuses: Mapping[str, int]
    static: int
    strict: int
    answered: int
    pass_rate: float | None
    achievement: float | None


def score(tasks: Sequence[Task], verdicts: Mapping[str, Mapping[str, Any]]) -> LevelScore:
    """Count the verdicts on the tasks of one level."""
    mine = [verdicts[task.id] for task in tasks if task.id in verdicts]
    counts = Counter(str(verdict["status"]) for verdict in mine)
    judged = counts["passed"] + counts["failed"] + counts["no answer"]
    hard = [task for task in tasks if task.target is not None and task.target.difficulty == "hard"]
    aimed = [verdicts[task.id] for task in hard if "required" in verdicts.get(task.id, {})]
    achieved = [reached(verdict) for verdict in aimed if verdict["status"] in ("passed", "failed")]
    answered = [verdict for verdict in mine if "static" in verdict]
    return LevelScore(
        tasks[0].level,
        {status: counts[status] for status in STATUSES if counts[status]},
        sum(verdict["static"]["passed"] for verdict in answered),
        sum(bool(verdict["strict"]) for verdict in answered),
        len(answered),
        counts["passed"] / judged if judged else None,
        sum(achieved) / len(achieved) if achieved else None,
    )


def reached(verdict: Mapping[str, Any]) -> float:
    """Return what S_a counts of a verdict: min(U / U_req, 1), and 0 where another gate failed."""
    if verdict["status"] == "passed" or verdict.get("error") == "relative speed":
        return float(verdict["figures"]["achieved"])
    return 0.0
