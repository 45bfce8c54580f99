"""Other libraries' methods with an aim of their own: one objective, and a bound."""

from __future__ import annotations

import pytest

from diffopt.bench.outcome import Measured
from diffopt.search.study.problem import Aim
from diffopt.search.study.rivals import RIVALS, nsga2, tpe
from diffopt.search.study.synthetic import Synthetic

LEAST_DB = 30.0
FASTEST = Aim(
    lambda outcome: (1 / outcome.latency.ratio,), (20.0,), lambda outcome: LEAST_DB - outcome.fidelity.psnr_median
)


@pytest.mark.parametrize("method", [nsga2, tpe])
def test_a_bound_is_kept_by_more_programs_than_where_nobody_asks(method: object) -> None:
    problem = Synthetic(seed=3)

    def kept(aim: Aim) -> int:
        trials = method(problem, 40, 1, aim)  # type: ignore[operator]
        assert len(trials) == 40
        return sum(isinstance(t.outcome, Measured) and t.outcome.fidelity.psnr_median >= LEAST_DB for t in trials[20:])

    assert kept(FASTEST) > kept(Aim(FASTEST.values, FASTEST.failed))


@pytest.mark.parametrize("name", RIVALS)
def test_the_front_is_their_aim_where_none_is_given(name: str) -> None:
    assert len(RIVALS[name](Synthetic(seed=3), 14, 0)) == 14
