"""The Mann-Whitney test: whether one sample tends to be larger than another."""

from __future__ import annotations

import math
from collections.abc import Sequence


def p_greater(left: Sequence[float], right: Sequence[float]) -> float:
    """Return the one-sided p of the left sample not being larger, by the normal approximation with ties.

    Good from about eight values a sample on (Mann and Whitney 1947).
    """
    count, total = len(left), len(left) + len(right)
    wins = sum((a > b) + 0.5 * (a == b) for a in left for b in right)
    values = sorted([*left, *right])
    ties = sum(t**3 - t for t in (values.count(v) for v in set(values)))
    variance = count * len(right) / 12 * (total + 1 - ties / (total * (total - 1)))
    if variance <= 0:
        return 1.0
    z = (wins - count * len(right) / 2 - 0.5) / math.sqrt(variance)
    return 0.5 * math.erfc(z / math.sqrt(2))
