"""Who survives: constraint domination, then Pareto rank, then the hypervolume a point adds."""

from __future__ import annotations

import math
from typing import TypeAlias

import moocore
import numpy as np
from numpy.typing import NDArray

Points: TypeAlias = NDArray[np.float64]

REFERENCE = np.array([0.1, -15.0, math.log(4.0)])
"""The corner that hypervolume is measured from: 10 % slower than the baseline, 15 dB, four times its memory.

What lies beyond it adds nothing: nobody wants such a program, however good it is in one respect.
"""


def hypervolume(points: Points, reference: Points = REFERENCE) -> float:
    """Return the volume that the points (n × 3, minimised) dominate up to the reference."""
    inside = points[(points < reference).all(axis=1)]
    return float(moocore.hypervolume(inside, ref=reference)) if len(inside) else 0.0


def front(points: Points, violations: Points) -> NDArray[np.int64]:
    """Return the indices of feasible points that no feasible point dominates."""
    feasible = np.flatnonzero(violations <= 0)
    if not len(feasible):
        return feasible
    return np.asarray(feasible[moocore.pareto_rank(points[feasible]) == 0], dtype=np.int64)


def survivors(points: Points, violations: Points, reference: Points = REFERENCE) -> NDArray[np.int64]:
    """Return all indices, best first.

    Deb's rule: a feasible point comes before any infeasible one, and infeasible points stand in the order of their
    violation. Feasible points stand by Pareto rank, and within a rank by the hypervolume they alone contribute.
    """
    order: list[int] = []
    feasible = np.flatnonzero(violations <= 0)
    if len(feasible):
        ranks = moocore.pareto_rank(points[feasible])
        for rank in range(int(ranks.max()) + 1):
            members = feasible[ranks == rank]
            contributions = _contributions(points[members], reference)
            order.extend(int(i) for i in members[np.argsort(-contributions, kind="stable")])
    infeasible = np.flatnonzero(violations > 0)
    order.extend(int(i) for i in infeasible[np.argsort(violations[infeasible], kind="stable")])
    return np.array(order, dtype=np.int64)


def gains(points: Points, offered: Points, reference: Points = REFERENCE) -> Points:
    """Return, for each of the offered points (m × 3), the hypervolume it would add to the points."""
    if len(points):
        points = points[moocore.is_nondominated(points)]
    have = hypervolume(points, reference)
    added = [hypervolume(np.vstack([points, row[None, :]]), reference) - have for row in offered]
    return np.maximum(np.array(added, dtype=np.float64), 0.0)


def _contributions(points: Points, reference: Points) -> Points:
    inside = (points < reference).all(axis=1)
    result = np.zeros(len(points))
    if inside.any():
        result[inside] = moocore.hv_contributions(points[inside], ref=reference)
    return result
