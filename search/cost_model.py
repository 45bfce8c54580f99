"""What a program will take, before it is built: costs of its parts, measured once, times how often its loop calls them.

A program's *making* is what was done to its components: engine, precision, fusions. For each making two numbers are
known from a few measured programs: what a call takes outside the loop, and one guided whole denoiser call inside it. How
a call of half the batch, or a shallow one, compares with that is the same for all makings.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from statistics import median

import numpy as np
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.description import JSON
from diffopt.ir.dialect import components, loops

PLANS = frozenset({"cache_features", "step_plan", "forecast_features", "reuse_unconditional"})
"""Transforms that say when the denoiser is called, which is counted, and not what a call costs."""

SHALLOW, SINGLE = 0.4, 0.55
"""What a shallow call, and one of half the batch, take of a whole guided one, until programs with them were measured."""

_RATIOS = tuple(np.round(np.arange(0.1, 1.01, 0.05), 2).tolist())


@dataclass(frozen=True)
class Calls:
    """How often a program calls its denoiser: guided (both halves) or alone, whole or shallow."""

    guided: int = 0
    guided_shallow: int = 0
    alone: int = 0
    alone_shallow: int = 0

    def work(self, shallow: float, single: float) -> float:
        """Return the calls as whole guided ones."""
        return self.guided + shallow * self.guided_shallow + single * (self.alone + shallow * self.alone_shallow)


@dataclass(frozen=True)
class Measurement:
    """A program that was measured: how it was made, what it calls, and its seconds a call of the pipeline."""

    making: str
    calls: Calls
    seconds: float


@dataclass(frozen=True)
class Cost:
    """Seconds outside the loop, and of one whole guided call of the denoiser."""

    fixed: float
    call: float


@dataclass(frozen=True)
class CostModel:
    """Costs by making; made by `fit`.

    Args:
        shallow, single: what such calls take of a whole guided one.
    """

    costs: Mapping[str, Cost]
    shallow: float = SHALLOW
    single: float = SINGLE
    version: int = field(default=1)

    def predict(self, making: str, calls: Calls) -> float | None:
        """Return seconds a call of the pipeline, or `None` where nothing made so was measured."""
        cost = self.costs.get(making)
        return None if cost is None else cost.fixed + cost.call * calls.work(self.shallow, self.single)

    def to_json(self) -> dict[str, JSON]:
        """Return plain data."""
        costs: dict[str, JSON] = {making: [cost.fixed, cost.call] for making, cost in self.costs.items()}
        return {"version": self.version, "shallow": self.shallow, "single": self.single, "costs": costs}


@dataclass(frozen=True)
class Error:
    """How far predictions lie from what was measured.

    Args:
        median, worst: relative errors.
        correlation: rank correlation.
        predicted, unknown: programs with a prediction, and without.
    """

    median: float
    worst: float
    correlation: float
    predicted: int
    unknown: int


def calls_of(module: ModuleOp) -> Calls:
    """Count the denoiser calls of a program."""
    counts = {"guided": 0, "guided_shallow": 0, "alone": 0, "alone_shallow": 0}
    for loop in loops(module):
        start, stop = loop.bounds
        kind = "guided" if loop.guide else "alone"
        for predict in loop.predicts[:1]:
            whole = stop - start if predict.full_steps is None else sum(start <= i < stop for i in predict.full_steps)
            counts[kind] += whole
            counts[f"{kind}_shallow"] += stop - start - whole
    return Calls(**counts)


def making_of(module: ModuleOp) -> str:
    """Return 12 hexadecimal digits of what was done to the components; when they are called is not in it."""
    parts = []
    for name, component in sorted(components(module).items()):
        if name == "scheduler":
            continue
        for transform in component.transforms:
            if transform.transform.data not in PLANS:
                parts.append(f"{name} {transform.transform.data} {sorted(transform.arguments.items(), key=str)}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def fit(measured: Sequence[Measurement]) -> CostModel:
    """Find the costs that explain some measured programs best, by relative error.

    A making with one program has the share outside the loop that the others have in the median.

    Raises:
        ValueError: nothing was measured.
    """
    if not measured:
        raise ValueError("a cost model needs a measured program")
    groups: dict[str, list[Measurement]] = defaultdict(list)
    for one in measured:
        groups[one.making].append(one)
    shallow_seen = any(m.calls.guided_shallow or m.calls.alone_shallow for m in measured)
    single_seen = any(m.calls.alone or m.calls.alone_shallow for m in measured)
    best: tuple[float, CostModel] | None = None
    for shallow, single in product(_RATIOS if shallow_seen else (SHALLOW,), _RATIOS if single_seen else (SINGLE,)):
        model = CostModel(_costs(groups, shallow, single), shallow, single)
        missed = sum(
            math.log(max(model.predict(m.making, m.calls) or m.seconds, 1e-9) / m.seconds) ** 2 for m in measured
        )
        if best is None or missed < best[0]:
            best = missed, model
    assert best is not None
    return best[1]


def error_of(model: CostModel, measured: Sequence[Measurement]) -> Error:
    """Compare predictions with measured programs."""
    from diffopt.search.surrogate import rank_correlation

    pairs = [(p, m.seconds) for m in measured if (p := model.predict(m.making, m.calls)) is not None]
    if not pairs:
        return Error(math.nan, math.nan, 0.0, 0, len(measured))
    relative = [abs(predicted / seconds - 1) for predicted, seconds in pairs]
    correlation = rank_correlation(np.array([p for p, _ in pairs]), np.array([s for _, s in pairs]))
    return Error(median(relative), max(relative), correlation, len(pairs), len(measured) - len(pairs))


def _costs(groups: Mapping[str, Sequence[Measurement]], shallow: float, single: float) -> dict[str, Cost]:
    found: dict[str, Cost] = {}
    for making, group in groups.items():
        work = np.array([m.calls.work(shallow, single) for m in group])
        seconds = np.array([m.seconds for m in group])
        if np.ptp(work) > 0:
            # Least squares of the relative error, both parts at least zero.
            rows = np.stack([np.ones_like(work), work], axis=1) / seconds[:, None]
            fixed, call = np.linalg.lstsq(rows, np.ones_like(work), rcond=None)[0]
            if fixed < 0 or call < 0:
                fixed, call = (0.0, float(np.median(seconds / work))) if fixed < 0 else (float(np.median(seconds)), 0.0)
            found[making] = Cost(float(fixed), float(call))
    usual = median([cost.fixed / cost.call for cost in found.values() if cost.call > 0] or [2.0])
    for making, group in groups.items():
        if making not in found:
            call = median(m.seconds / (usual + m.calls.work(shallow, single)) for m in group)
            found[making] = Cost(usual * call, call)
    return found
