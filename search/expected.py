"""Expected gain in hypervolume, exactly, where each objective of a program is a normal variable of its own.

The part of space that no front point dominates is cut into boxes; in each, the expected length by which a point reaches
below the box's upper end is known in closed form for every axis (Emmerich et al. 2011; Yang et al. 2019).
"""

from __future__ import annotations

import numpy as np

from diffopt.search.selection import Points


def expected_gains(front: Points, reference: Points, mean: Points, deviation: Points) -> Points:
    """Return the expected hypervolume that each of some points (m × 3) adds to a front (n × 3, minimised)."""
    inside = front[(front < reference).all(axis=1)]
    order = inside[np.argsort(inside[:, 2], kind="stable")]
    heights = np.unique(order[:, 2])
    edges = np.concatenate([heights, reference[2:3]])
    below = reach(edges, mean[:, 2], deviation[:, 2])
    corner = [reach(reference[axis : axis + 1], mean[:, axis], deviation[:, axis])[0] for axis in range(2)]
    # Below the lowest point everything is a gain.
    total = below[0] * corner[0] * corner[1]
    for at, height in enumerate(heights):
        stairs = _stairs(order[order[:, 2] <= height])
        ends = np.concatenate([stairs[:, 0], reference[:1]])
        reached = reach(ends, mean[:, 0], deviation[:, 0])
        # Left of the first stair up to the corner, then under each stair.
        area = reached[0] * corner[1]
        area = area + (np.diff(reached, axis=0) * reach(stairs[:, 1], mean[:, 1], deviation[:, 1])).sum(axis=0)
        total = total + (below[at + 1] - below[at]) * area
    found: Points = np.maximum(total, 0.0)
    return found


def reach(ends: Points, mean: Points, deviation: Points) -> Points:
    """Return E[max(end - x, 0)] of normal variables (m) for each end (k): k × m."""
    spread = np.maximum(deviation, 1e-12)
    z = (ends[:, None] - mean) / spread
    found: Points = spread * (z * normal_cdf(z) + np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi))
    return np.maximum(found, 0.0)


def normal_cdf(z: Points) -> Points:
    """Return the share of a standard normal variable below z; error under 1e-7 (Abramowitz and Stegun 26.2.17)."""
    t = 1 / (1 + 0.2316419 * np.abs(z))
    tail = t * (0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))))
    upper = tail * np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    found: Points = np.where(z >= 0, 1 - upper, upper)
    return found


def _stairs(points: Points) -> Points:
    """Return the points that are best in the first two objectives, by the first; the second falls along them."""
    order = points[np.lexsort((points[:, 1], points[:, 0]))]
    lowest = np.minimum.accumulate(order[:, 1])
    falls = np.concatenate([[True], order[1:, 1] < lowest[:-1]])
    found: Points = order[falls][:, :2]
    return found
