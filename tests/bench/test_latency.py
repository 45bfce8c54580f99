from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from diffopt.bench.latency import Call, Timing, race, warm_up
from diffopt.bench.resident import Images

IMAGE = np.zeros((1, 2, 2, 3), np.float32)


class Side:
    """A pipeline whose next time is decided by a rule; it keeps what it was asked."""

    def __init__(self, rule: Callable[[int], float], calls: list[tuple[str, str, int]], name: str) -> None:
        self.rule, self.calls, self.name, self.count = rule, calls, name, 0

    def __call__(self, prompts: list[str], seeds: list[int]) -> tuple[float, Images]:
        self.calls.append((self.name, prompts[0], seeds[0]))
        self.count += 1
        return self.rule(self.count), IMAGE


def draws() -> Callable[[], tuple[list[str], list[int]]]:
    rng = np.random.default_rng(3)
    return lambda: ([f"prompt {rng.integers(10)}"], [int(rng.integers(1 << 31))])


def test_each_pair_shares_a_fresh_prompt_and_seed_and_the_order_is_random() -> None:
    calls: list[tuple[str, str, int]] = []
    rng = np.random.default_rng(0)
    noisy = np.random.default_rng(1)
    found = race(
        Side(lambda n: 2.0 + noisy.random(), calls, "baseline"), Side(lambda n: 1.0, calls, "candidate"), draws(),
        rng=rng, timing=Timing((30, 30), half_width=0.0),
    )  # fmt: skip
    pairs = list(zip(calls[::2], calls[1::2], strict=True))
    assert found.latency.pairs == len(pairs) == len(found.images) == 30
    assert all(one[1:] == two[1:] for one, two in pairs)
    assert len({one[2] for one, _ in pairs}) == 30
    assert {one[0] for one, _ in pairs} == {"baseline", "candidate"}
    assert 2.0 <= found.latency.lo <= found.latency.ratio <= found.latency.hi <= 3.0


def test_drift_that_both_share_does_not_move_the_ratio() -> None:
    clock = [1.0]

    def drifting(factor: float) -> Call:
        def call(prompts: list[str], seeds: list[int]) -> tuple[float, Images]:
            clock[0] *= 1.01
            return clock[0] * factor, IMAGE

        return call

    found = race(drifting(3.0), drifting(1.0), draws(), rng=np.random.default_rng(0)).latency
    assert found.ratio == pytest.approx(3.0, rel=0.02)
    assert found.stopped == "precise"


def test_stops_early_when_the_candidate_cannot_reach_the_threshold() -> None:
    noisy = np.random.default_rng(1)
    calls: list[tuple[str, str, int]] = []
    baseline = Side(lambda n: float(noisy.lognormal(0, 0.2)), calls, "baseline")
    found = race(
        baseline, Side(lambda n: 1.0, calls, "candidate"), draws(), rng=noisy, timing=Timing(threshold=5.0)
    ).latency
    assert (found.stopped, found.pairs) == ("decided", 5)


@pytest.mark.parametrize(("usual_s", "state"), [(None, "normal"), (1.0, "normal"), (0.8, "slow"), (1.3, "fast")])
def test_says_in_which_state_the_machine_was(usual_s: float | None, state: str) -> None:
    side = Side(lambda n: 1.0, [], "")
    assert race(side, side, draws(), rng=np.random.default_rng(0), usual_s=usual_s).latency.state == state


@pytest.mark.parametrize(
    ("rule", "count"), [(lambda n: 1.0, 3), (lambda n: 10.0 / n if n < 4 else 1.0, 6), (lambda n: float(n), 8)]
)
def test_warms_up_until_three_times_agree_but_not_for_ever(rule: Callable[[int], float], count: int) -> None:
    assert len(warm_up(Side(rule, [], ""), draws())) == count


def test_one_call_is_enough_to_wake_a_warm_worker() -> None:
    assert len(warm_up(Side(lambda n: 1.0, [], ""), draws(), fewest=1)) == 1


def test_pairs_are_spread_by_rests_after_every_quarter() -> None:
    side, rests = Side(lambda n: 1.0, [], ""), list[float]()
    timing = Timing((8, 8), rest_s=2.0, half_width=0.0)
    race(side, side, draws(), rng=np.random.default_rng(0), timing=timing, sleep=rests.append)
    assert rests == [2.0, 2.0, 2.0]
