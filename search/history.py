"""The trials of a run as the numbers that choosing the next candidate works with."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from diffopt.passes.base import Tier, options
from diffopt.search.design import Part
from diffopt.search.facts import trace_facts
from diffopt.search.goals import PSNR_CEILING_DB, Constraints, measured, objectives, violation
from diffopt.search.selection import REFERENCE, Points, front, hypervolume, survivors
from diffopt.search.space import Legal, Space, Steps
from diffopt.search.surrogate import Surrogate, fit

if TYPE_CHECKING:
    from diffopt.bench.outcome import Measured
    from diffopt.search.records import Trial


BASELINE = np.array([0.0, -PSNR_CEILING_DB, 0.0])
"""Objectives of the baseline: as fast and as large as itself, and the same images."""


PROMISES = {Tier.EXACT: (80.0, 10.0), Tier.NEAR: (50.0, 15.0), Tier.TRADED: (35.0, 15.0)}
"""PSNR in dB that a pass of each tier is expected to leave, before it was measured, and how unsure that is."""


@dataclass(frozen=True)
class History:
    """What is known after some trials; made by `read`.

    Args:
        trials: the measured ones, in the order of telling.
        points: their objectives (n × 3, minimised).
        violations: by how much each misses the constraints.
        reference: the corner that hypervolume is measured from, within the constraints.
        baseline: facts of the program without passes.
        parts: the passes there are, as the surrogate sees them.
        failures, successes: how often each part of a program (see `parts`) was in a failed or measured trial.
        failed: ids of the candidates that failed.
    """

    trials: tuple[Trial, ...]
    steps: tuple[Steps, ...]
    points: Points
    violations: Points
    reference: Points
    baseline: Mapping[str, float]
    parts: tuple[Part, ...]
    failures: Counter[str]
    successes: Counter[str]
    failed: tuple[int, ...] = ()

    @property
    def front(self) -> Points:
        """Objectives of the front."""
        return self.points[front(self.points, self.violations)]

    @property
    def volume(self) -> float:
        """Hypervolume of the front."""
        return hypervolume(self.front, self.reference)

    def parents(self, count: int) -> list[Steps]:
        """Return the traces of the best trials, best first."""
        return [self.steps[i] for i in survivors(self.points, self.violations, self.reference)[:count]]

    def surrogate(self) -> Surrogate | None:
        """Return a model of the trials, or `None` where none can be trusted.

        The baseline is in it, whose objectives are known without measuring; failed trials are not.
        """
        if not self.trials:
            return None
        described = [
            {**trial.candidate.facts, **trace_facts(steps)}
            for trial, steps in zip(self.trials, self.steps, strict=True)
        ]
        return fit([self.baseline, *described], np.vstack([BASELINE, self.points]), self.parts)

    def trust(self, steps: Steps) -> float:
        """Return the share of times, by Laplace's rule, that the worst part of a program went well so far."""
        shares = (
            (1 + self.successes[part]) / (1 + self.successes[part] + self.failures[part]) for part in parts(steps)
        )
        return min(shares, default=1.0)


def read(trials: Sequence[Trial], constraints: Constraints, space: Space) -> History:
    """Turn trials into numbers; a failed trial only counts against its parts."""
    succeeded, failed = Counter[str](), Counter[str]()
    kept: list[Trial] = []
    lost: list[int] = []
    outcomes: list[Measured] = []
    programs: list[Steps] = []
    for trial in trials:
        steps = space.parse(trial.candidate.trace).passes
        outcome = measured(trial)
        (failed if outcome is None else succeeded).update(parts(steps))
        if outcome is None:
            lost.append(trial.candidate.id)
        else:
            kept.append(trial)
            outcomes.append(outcome)
            programs.append(steps)
    points = np.array([objectives(o) for o in outcomes], dtype=np.float64).reshape(len(outcomes), 3)
    violations = np.array(
        [violation(constraints, o, t.candidate.facts) for o, t in zip(outcomes, kept, strict=True)], dtype=np.float64
    )
    reference = _reference(outcomes, points, violations, constraints)
    start = space.check(())
    baseline = start.facts if isinstance(start, Legal) else {}
    return History(
        tuple(kept), tuple(programs), points, violations, reference, baseline, known_parts(space), failed, succeeded,
        tuple(lost),
    )  # fmt: skip


def features(steps: Steps, legal: Legal) -> dict[str, float]:
    """Return all that the surrogate sees of a program."""
    return {**legal.facts, **trace_facts(steps)}


def known_parts(space: Space) -> tuple[Part, ...]:
    """Return the passes of a space: what their tier promises, and the instances worth trying on the baseline."""
    found = []
    for name in space.names:
        instances = space.instances(name, ())
        usual, unsure = PROMISES[instances[0].tier] if instances else PROMISES[Tier.TRADED]
        found.append(Part(name, usual, unsure, tuple(trace_facts((step,)) for step in instances)))
    return tuple(found)


def parts(steps: Steps) -> Iterable[str]:
    """Name the parts of a program that may fail for their own reason: each pass with its non-numeric options."""
    for step in steps:
        chosen = [(o.name, getattr(step, o.name)) for o in options(type(step)) if o.type in ("str", "bool")]
        yield " ".join([step.name, *(f"{name}={value}" for name, value in chosen)])


def _reference(outcomes: Sequence[Measured], points: Points, violations: Points, constraints: Constraints) -> Points:
    """Move the corner inward to the constraints: only volume within them counts."""
    reference = REFERENCE.copy()
    if not outcomes:
        return reference
    if constraints.max_latency_s is not None:
        baseline = median(s for o in outcomes for s in o.latency.baseline_s)
        reference[0] = min(reference[0], math.log(constraints.max_latency_s / baseline))
    if constraints.min_psnr is not None:
        reference[1] = min(reference[1], -constraints.min_psnr)
    if constraints.max_memory_bytes is not None:
        baseline = median(o.memory.baseline_peak_bytes for o in outcomes)
        reference[2] = min(reference[2], math.log(constraints.max_memory_bytes / baseline))
    if constraints.tier is not None:
        # The bounds of a tier are the evaluator's; here is only seen where, in dB, trials began to miss it.
        missed, met = points[violations > 0, 1], points[violations <= 0, 1]
        if len(missed):
            reference[1] = min(reference[1], max(float(missed.min()), float(met.max(initial=-np.inf))))
    return reference
