"""A small model of the landscape: kernel ridge that checks itself and steps aside when it cannot rank."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]

FEWEST_POINTS = 8
LEAST_CORRELATION = 0.3
PENALTIES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Strengths of the ridge, relative to the mean of the kernel's diagonal."""

BENDS = (0.0, 0.3, 0.7)
"""Shares of the Gaussian kernel beside the linear one: how far effects are allowed to depend on each other."""


@dataclass(frozen=True)
class Surrogate:
    """A fitted model; made by `fit`.

    Args:
        names: features that differ among the measured points; others are not known to matter.
        seen: all features that occur in a measured point.
        correlations: leave-one-out rank correlation of each objective.
    """

    names: tuple[str, ...]
    seen: frozenset[str]
    centre: Array
    scale: Array
    rows: Array
    heads: tuple[_Head, ...]
    correlations: tuple[float, ...]

    def predict(self, features: Sequence[Mapping[str, float]]) -> tuple[Array, Array]:
        """Return mean and standard deviation (n × objectives) for programs with these features.

        A feature that no measured point has widens the deviation: nothing is known of it.
        """
        asked = (_matrix(features, self.names) - self.centre) / self.scale
        strange = np.array([sum(name not in self.seen for name in f) for f in features], dtype=np.float64)
        means, deviations = [], []
        for head in self.heads:
            cross, own = _kernel(asked, self.rows, head.bend), _self_kernel(asked, head.bend)
            means.append(head.mean + cross @ head.weights)
            unexplained = own - np.einsum("ij,jk,ik->i", cross, head.inverse, cross)
            relative = 1 + np.maximum(unexplained, 0.0) / head.penalty + 0.5 * strange
            deviations.append(head.noise * np.sqrt(relative))
        return np.stack(means, axis=1), np.stack(deviations, axis=1)


@dataclass(frozen=True)
class _Head:
    """The model of one objective."""

    mean: float
    weights: Array
    inverse: Array
    bend: float
    penalty: float
    noise: float


def fit(features: Sequence[Mapping[str, float]], targets: Array) -> Surrogate | None:
    """Fit a model an objective on standardised features; penalty and kernel by leave-one-out error.

    Returns `None` where there are fewer than 8 points, or where the first two objectives (latency and fidelity) are
    ranked with a leave-one-out correlation below 0.3: then the search does without. Another objective that cannot be
    ranked is predicted by its mean.
    """
    if len(features) < FEWEST_POINTS:
        return None
    seen = sorted({name for f in features for name in f})
    raw = _matrix(features, seen)
    varying = np.ptp(raw, axis=0) > 0
    names = tuple(name for name, varies in zip(seen, varying, strict=True) if varies)
    if not names:
        return None
    centre, scale = raw[:, varying].mean(axis=0), raw[:, varying].std(axis=0)
    rows = (raw[:, varying] - centre) / scale
    fitted = [_fit_head(rows, target) for target in targets.T]
    correlations = tuple(
        rank_correlation(left_out, target) for (_, left_out), target in zip(fitted, targets.T, strict=True)
    )
    if min(correlations[:2]) < LEAST_CORRELATION:
        return None
    heads = tuple(
        head if correlation >= LEAST_CORRELATION else _flat(head, target)
        for (head, _), correlation, target in zip(fitted, correlations, targets.T, strict=True)
    )
    return Surrogate(names, frozenset(seen), centre, scale, rows, heads, correlations)


def rank_correlation(left: Array, right: Array) -> float:
    """Return Spearman's correlation, equal values sharing their mean rank; 0 where one side is constant."""
    a, b = _ranks(left), _ranks(right)
    a, b = a - a.mean(), b - b.mean()
    length = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / length if length > 0 else 0.0


def _fit_head(rows: Array, target: Array) -> tuple[_Head, Array]:
    """Return the model with the least leave-one-out error, and its leave-one-out predictions."""
    mean = float(target.mean())
    best: tuple[float, _Head, Array] | None = None
    for bend in BENDS:
        gram = _kernel(rows, rows, bend)
        for relative in PENALTIES:
            penalty = relative * float(np.trace(gram)) / len(gram)
            inverse: Array = np.asarray(np.linalg.inv(gram + penalty * np.eye(len(gram))), dtype=np.float64)
            weights: Array = inverse @ (target - mean)
            residual = weights / np.diag(inverse)
            error = float(np.mean(residual**2))
            if best is None or error < best[0]:
                noise = math.sqrt(max(penalty * float((target - mean) @ weights) / len(gram), 0.0))
                best = error, _Head(mean, weights, inverse, bend, penalty, noise), target - residual
    assert best is not None
    return best[1], best[2]


def _flat(head: _Head, target: Array) -> _Head:
    return _Head(head.mean, 0.0 * head.weights, head.inverse, head.bend, np.inf, float(target.std()))


def _kernel(left: Array, right: Array, bend: float) -> Array:
    """Return linear plus Gaussian similarity; the length scale is the typical distance of standardised points."""
    width = left.shape[1]
    linear: Array = left @ right.T / width
    if bend == 0.0:
        return linear
    distance = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1)[None, :] - 2 * left @ right.T
    mixed: Array = (1 - bend) * linear + bend * np.exp(-np.maximum(distance, 0.0) / (2 * width))
    return mixed


def _self_kernel(rows: Array, bend: float) -> Array:
    own: Array = (1 - bend) * (rows**2).sum(axis=1) / rows.shape[1] + bend
    return own


def _matrix(features: Sequence[Mapping[str, float]], names: Sequence[str]) -> Array:
    values = [[f.get(name, 0.0) for name in names] for f in features]
    return np.array(values, dtype=np.float64).reshape(len(features), len(names))


def _ranks(values: Array) -> Array:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Array = (np.cumsum(counts) - (counts + 1) / 2)[inverse]
    return ranks
