"""Check results that somebody hands in: by their own raw samples, by judging again, and by measuring some again."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np

from diffopt.bench.outcome import Failed, Measured, Outcome, outcome_from_json
from diffopt.bench.statistics import median, paired_ratio
from diffopt.bench.suite.arms.rules import baseline
from diffopt.bench.suite.judging import judge, judge_all
from diffopt.bench.suite.measured_gates import latency, speedup
from diffopt.bench.suite.measuring import Job, Protocol, measure
from diffopt.bench.suite.results import Results, pair_name, text_hash
from diffopt.bench.suite.running import tasks_of
from diffopt.bench.suite.store import MeasurementStore
from diffopt.bench.suite.task import Task
from diffopt.bench.tiers import Thresholds
from diffopt.ir.errors import DiffoptError

Targets: TypeAlias = Mapping[str, Mapping[str, float]]

REACH = 0.75
"""Share of a claimed speed-up that measuring again has to reach: states of a machine move ratios by up to a quarter."""
PROMPTS = (4, 1000)
PAIRS = (3, 1000)
"""Fewest and most that a protocol may name."""

OPEN = ("not measured", "no answer")
"""What tasks are whose model had no weights when they were asked, and has some now."""

_CLOSE = 1e-4
_UNREADABLE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)


@dataclass(frozen=True)
class Check:
    """What is wrong with results, and which tasks were measured again."""

    faults: tuple[str, ...]
    measured_again: tuple[str, ...] = ()

    @property
    def accepted(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults


def check_file(results: Results, targets: Targets = MappingProxyType({})) -> list[str]:
    """Say what is wrong with results by themselves: hashes, raw samples, and verdicts that do not follow from them.

    targets: those that a search has set here; results may hold no others.
    """
    return judged_again(results, targets)[0]


def judged_again(results: Results, targets: Targets = MappingProxyType({})) -> tuple[list[str], Results]:
    """Return what `check_file` says, and the results with verdicts of our own, figures included, where nothing is wrong."""
    faults = _described(results, targets)
    faults += [f"program {name} is another text than its name says" for name, text in results.programs.items()
              if text_hash(text) != name]  # fmt: skip
    for name, record in results.measurements.items():
        faults += [f"measurement {name}: {what}" for what in record_faults(record, results.protocol)]
    if faults:
        return faults, results
    try:
        asked = tasks_of(results)
        found = judge_all(asked, results)
    except DiffoptError as error:
        return [str(error)], results
    except _UNREADABLE as error:
        return [f"it cannot be judged: {type(error).__name__}: {error}"], results
    for task in asked:
        claimed = results.verdicts.get(task.id, {}).get("status")
        if claimed == "unavailable" and found[task.id]["status"] in OPEN:
            continue  # the model came later
        if claimed != found[task.id]["status"]:
            faults.append(
                f"{task.id} is said to be {claimed!r}, but its code and samples give {found[task.id]['status']!r}"
            )
    return faults, results if faults else results.with_verdicts({**found, **_of_a_later_model(results, found)})


def _of_a_later_model(results: Results, found: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return the verdicts on tasks whose model had no weights yet: they stay unavailable."""
    return {
        name: {**verdict, "status": "unavailable", "reasons": ["its model had no weights then"]}
        for name, verdict in found.items()
        if verdict["status"] in OPEN and results.verdicts[name]["status"] == "unavailable"
    }


def _described(results: Results, targets: Targets) -> list[str]:
    """Say what is wrong with the machine and the terms as they are told, and with targets that nobody here has set."""
    devices, protocol = results.machine.get("devices"), results.protocol
    faults = []
    if not (isinstance(devices, list) and devices and all(isinstance(device, dict) for device in devices)):
        faults.append("it does not say on what device it was measured")
    if not isinstance(results.machine.get("versions"), dict):
        faults.append("it does not say with what versions of the libraries it was measured")
    if not _within(protocol.get("prompts"), *PROMPTS) or not _within(protocol.get("seed"), 0, 2**63):
        faults.append(f"its protocol must be of {PROMPTS[0]} to {PROMPTS[1]} prompts, and of a seed")
    for name in ("pairs", "aimed_pairs"):
        pairs = protocol.get(name)
        if not (isinstance(pairs, list) and len(pairs) == 2 and all(_within(count, *PAIRS) for count in pairs)):
            faults.append(f"its protocol must name two numbers from {PAIRS[0]} to {PAIRS[1]} as {name}")
    if any(not text.isprintable() or "|" in text or "<" in text for text in (results.arm, *results.answers)):
        faults.append("a name holds what is no plain text")
    if any(targets.get(name) != dict(target) for name, target in results.targets.items()):
        faults.append("it brings targets of its own; they are set by a search on the machine that judges")
    return faults


def _within(value: object, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


def record_faults(record: Mapping[str, Any], protocol: Mapping[str, Any]) -> list[str]:
    """Say where a measurement's figures do not follow from its raw samples."""
    try:
        outcome = outcome_from_json(record["outcome"])
        if isinstance(outcome, Failed):
            return []
        adherence = record["adherence"]
        sides = [np.asarray(adherence[side], dtype=np.float64) for side in ("baseline", "candidate")]
        return _sample_faults(outcome, sides[0], sides[1], int(protocol["prompts"]))
    except _UNREADABLE as error:
        return [f"it cannot be read: {type(error).__name__}: {error}"]


def _sample_faults(outcome: Measured, base: Any, made: Any, prompts: int) -> list[str]:
    times, fidelity = outcome.latency, outcome.fidelity
    again = paired_ratio(times.baseline_s, times.candidate_s, rng=np.random.default_rng(0))
    faults = []
    if not abs(again.ratio / times.ratio - 1) <= _CLOSE:
        faults.append(f"the ratio is {times.ratio:.3f}, its samples give {again.ratio:.3f}")
    if not abs(median(fidelity.psnr) - fidelity.psnr_median) <= _CLOSE * 100:
        faults.append(f"median PSNR is {fidelity.psnr_median:.2f}, its samples give {median(fidelity.psnr):.2f}")
    if outcome.tier != (tier := Thresholds().tier(fidelity)):
        faults.append(f"it is said to be `{outcome.tier}`, its figures give `{tier}`")
    if not len(base) == len(made) == len(fidelity.psnr) == prompts:
        faults.append(f"it is of {len(made)} images, the protocol says {prompts}")
    elif not (base.min() >= 0 and base.max() <= 1 and made.min() >= 0 and made.max() <= 1):
        faults.append("a share of what a prompt asks for is not between 0 and 1")
    elif (fidelity.prompt_accuracy or 0) > np.mean(made >= 1 - _CLOSE) + 1.5 / prompts:
        # An image that is right in everything shows all that was asked for; rounding to 8 bits may turn one.
        faults.append(
            f"{fidelity.prompt_accuracy:.2f} of prompts are said to be right, the shares allow {np.mean(made == 1):.2f}"
        )
    return faults


def check(
    results: Results,
    *,
    work: Path,
    sample: int,
    seed: int,
    protocol: Protocol,
    targets: Targets = MappingProxyType({}),
    listen: Callable[[str], None] = lambda text: None,
) -> Check:
    """Check results, and measure a sample of the passed tasks again, here.

    Args:
        targets: see `check_file`.
        sample: how many tasks; 0 measures nothing.
        seed: decides which; one that the submitter cannot know.
        protocol: on what terms to measure again.

    Raises:
        DiffoptError: a baseline does not run, or the disk is full.
    """
    faults = check_file(results, targets)
    passed = (
        [task for task in tasks_of(results) if results.verdicts[task.id]["status"] in ("passed", "no target")]
        if not faults
        else []
    )
    again = random.Random(seed).sample(passed, min(sample, len(passed)))
    if not again:
        return Check(tuple(faults))
    store = MeasurementStore(work / "again.jsonl")
    jobs = [Job(task.family, baseline(task), results.code(task), task.level > 3) for task in again]
    measure(jobs, store, protocol=protocol, work=work / "again", listen=listen)
    for task, job in zip(again, jobs, strict=True):
        record = store.get(job.key(protocol))
        assert record is not None
        faults += _compared(task, results, job, record)
    return Check(tuple(faults), tuple(task.id for task in again))


def _compared(task: Task, results: Results, job: Job, record: Mapping[str, Any]) -> list[str]:
    """Say where a second measurement does not bear out the first."""
    name = pair_name(job.family, job.baseline, job.code)
    found = judge(task, replace(results, measurements={**results.measurements, name: record}))
    if found["status"] not in ("passed", "no target") and found.get("error") != "relative speed":
        return [f"{task.id} does not pass when it is measured again: {'; '.join(found['reasons'])}"]
    if task.target is None:
        return []
    before, after = (_speed(task, outcome_from_json(r["outcome"])) for r in (results.measurements[name], record))
    if after < REACH * before:
        return [f"{task.id} reaches {after / before:.2f} of its claimed speed when it is measured again"]
    return []


def _speed(task: Task, outcome: Outcome) -> float:
    if isinstance(outcome, Failed):
        return 0.0
    aimed = task.target is not None and task.target.metric == "latency"
    return 1 / latency(outcome).value if aimed else speedup(outcome).value
