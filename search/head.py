"""One objective: a formula with a prior on its parameters, and a Gaussian process for what the formula misses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from diffopt.search.design import Array, Part, Rows

NATURAL = 10 / math.log(10)
"""Decibels in one unit of the natural logarithm of an energy."""

AMPLITUDES = (0.1, 0.4, 4.0)
"""Variance of what the formula misses, relative to that of a part's effect."""

NOISES = (0.001, 0.01, 0.05)
"""Variance of a measurement, relative to the same."""

OPTIONS = 0.25
"""How much an option of a part matters, before anything is measured, relative to the part."""

ITERATIONS = 12


class Formula(Protocol):
    """An objective as a function of parameters, which are normal before anything is measured."""

    @property
    def spread(self) -> float:
        """Deviation, before measuring, of what a part does."""

    def prior(self, rows: Rows, parts: Sequence[Part]) -> tuple[Array, Array]:
        """Return mean and standard deviation of each parameter."""

    def value(self, rows: Rows, theta: Array) -> tuple[Array, Array]:
        """Return the objective of each program, and its derivatives by the parameters (n × k)."""


@dataclass(frozen=True)
class Sums:
    """Each part adds something, by its options: log latency and log memory.

    Args:
        spread: deviation, before measuring, of what a part does.
        power: mean and deviation of the power by which the work to do enters.
        usual: what a part does in the mean, before measuring.
    """

    spread: float
    power: tuple[float, float]
    usual: float = 0.0

    def prior(self, rows: Rows, parts: Sequence[Part]) -> tuple[Array, Array]:
        """See `Formula`."""
        count, wide, work = len(parts), _columns(rows).shape[1], rows.work.shape[1]
        mean = np.concatenate([np.full(count, self.usual), np.zeros(wide - count), np.full(work, self.power[0])])
        spreads = [np.full(count, self.spread), np.full(wide - count, OPTIONS * self.spread)]
        return mean, np.concatenate([*spreads, np.full(work, self.power[1])])

    def value(self, rows: Rows, theta: Array) -> tuple[Array, Array]:
        """See `Formula`."""
        columns = np.hstack([_columns(rows), rows.work])
        return columns @ theta, columns


@dataclass(frozen=True)
class Amdahl:
    """A part of the time is fixed, whatever happens to the rest; the log of the rest is a sum, as in `Sums`.

    Args:
        fixed: mean and deviation, before measuring, of the log of the fixed part's share of the baseline.
    """

    rest: Sums
    fixed: tuple[float, float]

    @property
    def spread(self) -> float:
        """Deviation, before measuring, of what a part does."""
        return self.rest.spread

    def prior(self, rows: Rows, parts: Sequence[Part]) -> tuple[Array, Array]:
        """See `Formula`."""
        mean, deviation = self.rest.prior(rows, parts)
        return np.append(mean, self.fixed[0]), np.append(deviation, self.fixed[1])

    def value(self, rows: Rows, theta: Array) -> tuple[Array, Array]:
        """See `Formula`."""
        rest, jacobian = self.rest.value(rows, theta[:-1])
        fixed = min(theta[-1], -0.1)
        total = np.logaddexp(rest, fixed)
        share = np.exp(rest - total)
        whole = np.log1p(np.exp(fixed))
        by_fixed = 1 - share - np.exp(fixed - whole)
        return total - whole, np.hstack([share[:, None] * jacobian, by_fixed[:, None]])


@dataclass(frozen=True)
class Energies:
    """Errors of the parts add up as energies, the baseline's own floor among them: log of the mean squared error.

    Each part may also scale the whole a little.

    Args:
        spread: deviation, before measuring, of the log energy of a part's error.
        floor: log energy below which nothing is told apart.
        scaling: by how much, relative to the spread, a part may scale the whole.
    """

    spread: float
    floor: float
    scaling: float = 0.2

    def prior(self, rows: Rows, parts: Sequence[Part]) -> tuple[Array, Array]:
        """See `Formula`."""
        count, owner = len(parts), _owners(rows)
        usual = np.array([-part.usual / NATURAL for part in parts])
        unsure = np.array([part.unsure / NATURAL for part in parts])
        mean = np.concatenate([usual, np.zeros(len(owner))])
        narrow = np.full(count, self.scaling * self.spread)
        return mean, np.concatenate([unsure, OPTIONS * unsure[owner[count:]], narrow])

    def value(self, rows: Rows, theta: Array) -> tuple[Array, Array]:
        """See `Formula`."""
        columns, parts = _columns(rows), rows.present.shape[1]
        wide = columns.shape[1]
        owner = _owners(rows)
        energies = np.zeros((len(rows), parts))
        for part in range(parts):
            mine = owner == part
            energies[:, part] = columns[:, mine] @ theta[:wide][mine]
        energies = np.where(rows.present > 0, np.clip(energies, self.floor - 20, 20), -np.inf)
        top = np.maximum(energies.max(axis=1, initial=-np.inf), self.floor)
        share = np.exp(energies - top[:, None])
        total = share.sum(axis=1) + np.exp(self.floor - top)
        derivative = (share / total[:, None])[:, owner] * columns
        return top + np.log(total) + rows.present @ theta[wide:], np.hstack([derivative, rows.present])


@dataclass(frozen=True)
class Head:
    """A fitted objective; made by `fit_head`.

    Args:
        left_out: what each measured program would have been predicted, had it not been measured.
    """

    formula: Formula
    theta: Array
    variances: Array
    rows: Rows
    jacobian: Array
    amplitude: float
    inverse: Array
    weights: Array
    left_out: Array
    evidence: float

    def predict(self, rows: Rows, pending: Rows | None = None) -> tuple[Array, Array]:
        """Return mean and standard deviation for other programs; a strange feature widens the deviation.

        Args:
            pending: programs that are being measured: what they will tell is no longer unsure, though not known yet.
        """
        value, jacobian = self.formula.value(rows, self.theta)
        missed = self.amplitude * _kernel(rows, self.rows)
        cross = (jacobian * self.variances) @ self.jacobian.T + missed
        mean = value + missed @ self.weights
        own = np.einsum("ij,j,ij->i", jacobian, self.variances, jacobian) + self.amplitude * _own(rows)
        left = own - np.einsum("ij,jk,ik->i", cross, self.inverse, cross)
        if pending is not None and len(pending):
            left -= self._told(rows, jacobian, cross, pending)
        unknown = (0.5 * self.formula.spread) ** 2 * rows.strange
        return mean, np.sqrt(np.maximum(left, 1e-9) + unknown)

    def _told(self, rows: Rows, jacobian: Array, cross: Array, pending: Rows) -> Array:
        """Return the variance that measuring other programs takes away: it does not depend on what comes out."""
        _, theirs = self.formula.value(pending, self.theta)
        known = (theirs * self.variances) @ self.jacobian.T + self.amplitude * _kernel(pending, self.rows)
        between = (jacobian * self.variances) @ theirs.T + self.amplitude * _kernel(rows, pending)
        among = (theirs * self.variances) @ theirs.T + self.amplitude * _kernel(pending, pending)
        between -= cross @ self.inverse @ known.T
        among -= known @ self.inverse @ known.T
        noise = NOISES[1] * self.formula.spread**2
        told: Array = np.einsum("ij,jk,ik->i", between, np.linalg.inv(among + noise * np.eye(len(pending))), between)
        return told


@dataclass(frozen=True)
class Flat:
    """An objective that nothing seen so far explains: its mean, and how far it spreads.

    Args:
        left_out: what each measured program would have been predicted.
    """

    mean: float
    deviation: float
    left_out: Array

    def predict(self, rows: Rows, pending: Rows | None = None) -> tuple[Array, Array]:
        """Return the same mean and standard deviation for all programs."""
        return np.full(len(rows), self.mean), np.full(len(rows), self.deviation)


def fit_head(formula: Formula, rows: Rows, target: Array, parts: Sequence[Part]) -> Head:
    """Fit by Gauss-Newton, with the strengths of noise and of what is missed that make the measurements likeliest."""
    best: Head | None = None
    kernel, prior = _kernel(rows, rows), formula.prior(rows, parts)
    theta = prior[0]
    for noise in NOISES:
        for amplitude in AMPLITUDES:
            found = _fitted(formula, rows, target, kernel, amplitude, noise, prior, theta)
            theta = found.theta
            if best is None or found.evidence > best.evidence:
                best = found
    assert best is not None
    return best


def _fitted(
    formula: Formula,
    rows: Rows,
    target: Array,
    kernel: Array,
    amplitude: float,
    noise: float,
    prior: tuple[Array, Array],
    theta: Array,
) -> Head:
    mean, deviation = prior
    variances, scale = deviation**2, formula.spread**2
    rest = scale * (amplitude * kernel + noise * np.eye(len(target)))
    factor = np.linalg.inv(rest)

    def loss(at: Array, value: Array) -> float:
        missed = target - value
        return float(missed @ factor @ missed + ((at - mean) ** 2 / variances).sum())

    value, jacobian = formula.value(rows, theta)
    now = loss(theta, value)
    for _ in range(ITERATIONS):
        shifted = target - value + jacobian @ (theta - mean)
        step = (
            mean
            + variances * (jacobian.T @ np.linalg.solve((jacobian * variances) @ jacobian.T + rest, shifted))
            - theta
        )
        length = 1.0
        while length > 0.01:
            tried = theta + length * step
            tried_value, tried_jacobian = formula.value(rows, tried)
            if (tried_loss := loss(tried, tried_value)) < now:
                break
            length /= 2
        else:
            break
        done = now - tried_loss < 1e-3 * now
        theta, value, jacobian, now = tried, tried_value, tried_jacobian, tried_loss
        if done:
            break
    covariance = (jacobian * variances) @ jacobian.T + rest
    inverse: Array = np.asarray(np.linalg.inv(covariance), dtype=np.float64)
    shifted = target - value + jacobian @ (theta - mean)
    weights = inverse @ shifted
    _, size = np.linalg.slogdet(covariance)
    evidence = -0.5 * float(shifted @ weights) - 0.5 * float(size)
    left_out = target - weights / np.diag(inverse)
    return Head(formula, theta, variances, rows, jacobian, scale * amplitude, inverse, weights, left_out, evidence)


def _columns(rows: Rows) -> Array:
    return np.hstack([rows.present, *rows.options])


def _owners(rows: Rows) -> Array:
    """Return which part each column belongs to."""
    parts = rows.present.shape[1]
    return np.concatenate([np.arange(parts), *(np.full(o.shape[1], at) for at, o in enumerate(rows.options))]).astype(
        int
    )


def _kernel(left: Rows, right: Rows) -> Array:
    """Return how alike programs are: shared pairs of parts, all features along a line, and all of them nearby."""
    shared = left.present @ right.present.T
    pairs = shared * (shared - 1) / 2
    width = max(left.scaled.shape[1], 1)
    linear = left.scaled @ right.scaled.T / width
    distance = (left.scaled**2).sum(axis=1)[:, None] + (right.scaled**2).sum(axis=1)[None, :] - 2 * linear * width
    found: Array = 0.3 * pairs + 0.3 * linear + 0.4 * np.exp(-np.maximum(distance, 0.0) / (2 * width))
    return found


def _own(rows: Rows) -> Array:
    shared = rows.present.sum(axis=1)
    width = max(rows.scaled.shape[1], 1)
    found: Array = 0.3 * shared * (shared - 1) / 2 + 0.3 * (rows.scaled**2).sum(axis=1) / width + 0.4
    return found
