"""Rounds are interleaved, kept, and go on where they stopped."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from diffopt.bench.gpu.rounds import Rounds, measure, ratios


def test_every_arm_runs_once_a_round_with_a_seed_of_its_own() -> None:
    seeds: list[int] = []
    order: list[str] = []

    def arm(name: str) -> Callable[[int], None]:
        def run(seed: int) -> None:
            seeds.append(seed)
            order.append(name)

        return run

    rounds: Rounds = [{"a": 1.0, "b": 1.0}]
    measure(
        {name: arm(name) for name in "ab"},
        rounds, rng=np.random.default_rng(0), most=4, until=1e9, keep=lambda: None, clock=lambda: 0.0,
    )  # fmt: skip
    assert len(rounds) == 4, "what was there already counts"
    assert len(set(seeds)) == 6
    assert all(sorted(order[start : start + 2]) == ["a", "b"] for start in (0, 2, 4))


def test_no_round_begins_that_would_end_too_late() -> None:
    now = [0.0]

    def slow(seed: int) -> None:
        now[0] += 4

    rounds: Rounds = []
    measure(
        {"a": slow}, rounds, rng=np.random.default_rng(0), most=9, until=10, keep=lambda: None, clock=lambda: now[0]
    )
    assert len(rounds) == 2


def test_ratios_pair_what_was_timed_in_one_round() -> None:
    rounds = [{"eager": 2.0 * factor, "ours": 1.0 * factor} for factor in (1.0, 1.5, 3.0)]
    found = ratios(rounds, ["eager"])
    assert found["ours"]["over_eager"]["ratio"] == 2.0
    assert found["ours"]["median_s"] == 1.5
