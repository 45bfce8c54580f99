"""A small model of the landscape: what is known of pipelines, corrected by what was measured; it checks itself.

Log latency and log memory are sums of what the parts of a program do. Errors of approximations add up as energies, so
that the largest decides the PSNR. What neither explains, such as how two passes get on, is left to a Gaussian process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from diffopt.search.design import Array, Design, Part, design
from diffopt.search.goals import PSNR_CEILING_DB
from diffopt.search.head import NATURAL, Amdahl, Energies, Flat, Formula, Head, Sums, fit_head

FEWEST_POINTS = 5
LEAST_CORRELATION = 0.3
ENOUGH_TO_JUDGE = 12
"""Points from which on a model that cannot rank them is not used."""

FORMULAS: tuple[Formula, ...] = (
    Amdahl(Sums(spread=0.3, power=(1.0, 0.1), usual=-0.15), fixed=(-3.0, 1.0)),
    Energies(spread=1.5, floor=-PSNR_CEILING_DB / NATURAL),
    Sums(spread=0.1, power=(0.0, 0.1)),
)
"""Latency, error and memory, in natural logarithms. A pass is there because it helps: it is expected to save 15 %."""


@dataclass(frozen=True)
class Surrogate:
    """A fitted model; made by `fit`.

    Args:
        design: how programs become numbers.
        heads: one an objective, in natural logarithms.
        correlations: leave-one-out rank correlation of each objective.
    """

    design: Design
    heads: tuple[Head | Flat, ...]
    correlations: tuple[float, ...]

    def predict(
        self, features: Sequence[Mapping[str, float]], pending: Sequence[Mapping[str, float]] = ()
    ) -> tuple[Array, Array]:
        """Return mean and standard deviation (n × objectives) for programs with these features.

        A feature that no measured point has widens the deviation: nothing is known of it. What `pending` programs will
        tell narrows it, so that several workers do not all go where most is to be learnt.
        """
        rows, asked = self.design.rows(features), self.design.rows(pending)
        found = [head.predict(rows, asked) for head in self.heads]
        units = _units(len(found))
        return np.stack([m for m, _ in found], axis=1) * units, np.stack([d for _, d in found], axis=1) * units


def fit(features: Sequence[Mapping[str, float]], targets: Array, parts: Sequence[Part] = ()) -> Surrogate | None:
    """Fit a model an objective: log latency, -PSNR in dB, log memory.

    Returns `None` where there are fewer than 5 points, or where by 12 points latency or fidelity are ranked with a
    leave-one-out correlation below 0.3: then the search does without. Memory that cannot be ranked is predicted by its
    mean.

    Args:
        features: of each program; the first is the baseline.
        parts: the passes a program may hold.
    """
    if len(features) < FEWEST_POINTS:
        return None
    made = design(features, parts)
    if not made.names:
        return None
    rows, scaled = made.rows(features), targets / _units(targets.shape[1])
    heads = tuple(
        fit_head(formula, rows, target, made.parts) for formula, target in zip(FORMULAS, scaled.T, strict=False)
    )
    correlations = tuple(rank_correlation(head.left_out, target) for head, target in zip(heads, scaled.T, strict=True))
    if len(features) < ENOUGH_TO_JUDGE:
        return Surrogate(made, heads, correlations)
    if min(correlations[:2]) < LEAST_CORRELATION:
        return None
    judged = tuple(
        head if correlation >= LEAST_CORRELATION else Flat(float(target.mean()), float(target.std()), head.left_out)
        for head, correlation, target in zip(heads, correlations, scaled.T, strict=True)
    )
    return Surrogate(made, judged, correlations)


def rank_correlation(left: Array, right: Array) -> float:
    """Return Spearman's correlation, equal values sharing their mean rank; 0 where one side is constant."""
    a, b = _ranks(left), _ranks(right)
    a, b = a - a.mean(), b - b.mean()
    length = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / length if length > 0 else 0.0


def _units(count: int) -> Array:
    """Return what one unit of each head is in its objective: -PSNR is counted in dB."""
    return np.array([1.0, NATURAL, 1.0][:count])


def _ranks(values: Array) -> Array:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Array = (np.cumsum(counts) - (counts + 1) / 2)[inverse]
    return ranks
