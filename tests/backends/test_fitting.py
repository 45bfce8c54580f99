"""Schedules fitted in one traced run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler
from hypothesis import given
from hypothesis import strategies as st

from diffopt.backends import BackendError
from diffopt.backends.fitting import best_timesteps, least_path, measure_drift


@given(st.integers(2, 6), st.integers(1, 5), st.randoms())
def test_the_least_path_is_the_least_of_all(nodes: int, count: int, random: Any) -> None:
    from itertools import combinations

    count = min(count, nodes - 1)
    costs = [[random.random() if after > before else float("inf") for after in range(nodes)] for before in range(nodes)]

    def cost(path: tuple[int, ...]) -> float:
        return sum(costs[a][b] for a, b in zip(path, (*path[1:], nodes - 1), strict=True))

    paths = [(0, *rest) for rest in combinations(range(1, nodes - 1), count - 1)]
    found = least_path(costs, count)
    assert found[0] == 0
    assert len(found) == count
    assert cost(tuple(found)) == pytest.approx(min(map(cost, paths)))


class Line:
    """A pipeline whose velocity changes at one time only: Euler steps are exact everywhere else."""

    def __init__(self, scheduler: Any, turn: float) -> None:
        self.scheduler = scheduler
        self.turn = turn

    def __call__(self) -> None:
        self.scheduler.set_timesteps(20)
        sample = torch.ones(1, 4)
        for step in self.scheduler.timesteps:
            velocity = torch.full((1, 4), 1.0 if step > self.turn else -1.0)
            sample = self.scheduler.step(velocity, step, sample, return_dict=False)[0]


def test_timesteps_go_where_the_path_turns_and_are_given_before_the_shift() -> None:
    for shift in (1.0, 3.0):
        pipe = Line(FlowMatchEulerDiscreteScheduler(shift=shift), turn=480)
        pipe.scheduler.set_timesteps(20)
        chosen = best_timesteps(pipe, pipe, 2)
        assert chosen[0] == 1000
        level = chosen[1] / 1000
        reached = 1000 * shift * level / (1 + (shift - 1) * level)
        assert reached == pytest.approx(max(t for t in pipe.scheduler.timesteps.tolist() if t <= 480), abs=2)
        assert "step" not in pipe.scheduler.__dict__


def test_refuses_a_trace_that_is_too_short_or_rescaled() -> None:
    pipe = Line(DDIMScheduler(), turn=0)
    with pytest.raises(BackendError, match="the traced run has 20 steps, fewer than 21"):
        best_timesteps(pipe, pipe, 21)
    pipe = Line(EulerDiscreteScheduler(), turn=0)
    with pytest.raises(BackendError, match="trace a run of DDIM"):
        best_timesteps(pipe, pipe, 4)


def test_timesteps_of_a_real_pipeline_fall_and_repeat(pipe: Any, picture: Callable[..., Any]) -> None:
    one, two = (best_timesteps(pipe, lambda: picture(pipe, num_inference_steps=12), 5) for _ in range(2))
    assert one == two == sorted(set(one), reverse=True)
    assert len(one) == 5


def test_drift_is_one_number_a_step(load: Callable[[], Any], picture: Callable[..., Any]) -> None:
    def measured() -> list[float]:
        pipe = load()
        return measure_drift(pipe, lambda: picture(pipe, num_inference_steps=6), "unet")

    drift = measured()
    assert len(drift) == 5
    assert all(change > 0 for change in drift)
    assert measured() == drift
