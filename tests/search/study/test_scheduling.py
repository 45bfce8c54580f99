from __future__ import annotations

import pytest

from diffopt.search.study.scheduling import Costs, simulate


def test_one_worker_is_kept_busy_and_twice_as_many_do_twice_as_much() -> None:
    one, two = (simulate(workers, Costs(lost=0), count=200) for workers in (1, 2))
    assert one.busy > 0.95
    assert two.measurements_per_hour == pytest.approx(2 * one.measurements_per_hour, rel=0.1)


def test_the_driver_bounds_what_many_workers_can_do() -> None:
    many = simulate(2000, Costs(lost=0), count=6000)
    assert many.driver_busy > 0.95
    assert many.measurements_per_hour < 3600 / 0.2
