from __future__ import annotations

import numpy as np
import pytest

from diffopt.search.space import Legal, Steps
from diffopt.search.study.orders import generated
from diffopt.search.study.synthetic import Synthetic


@pytest.mark.slow
def test_of_ten_thousand_candidates_none_is_illegal_and_none_comes_twice() -> None:
    problem = Synthetic(seed=1)

    def again(steps: Steps) -> str | None:
        verdict = Synthetic(seed=1).check(steps)
        return verdict.key if isinstance(verdict, Legal) else None

    *_, last = generated(problem, again, 10_000, np.random.default_rng(0))
    assert (last["candidates"], last["illegal"], last["repeated"]) == (10_000, 0, 0)
