from __future__ import annotations

import pytest

from diffopt.search.study.rank_sum import p_greater


def test_it_is_what_the_tables_say() -> None:
    # The exact one-sided p of all ten being larger than all ten others is 1 / 184756; the approximation is wider.
    assert p_greater(range(10, 20), range(10)) < 1e-3
    assert p_greater(range(10), range(10, 20)) > 0.999


def test_equal_samples_prove_nothing() -> None:
    assert p_greater([1.0] * 5, [1.0] * 5) == 1.0
    assert p_greater([1, 2, 3, 4], [1, 2, 3, 4]) == pytest.approx(0.56, abs=0.06)
