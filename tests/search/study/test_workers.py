from __future__ import annotations

from diffopt.search.study.synthetic import Synthetic
from diffopt.search.study.workers import PretendedWorkers, searched, summary


def test_measurements_end_in_the_order_of_their_ends_and_all_are_told() -> None:
    problem = Synthetic(seed=3, names=("fewer", "engine"))
    trials, seconds = searched(problem, 3, 7, seed=5)
    told = [trial.candidate.id for trial in trials]
    assert sorted(told) == list(range(1, 8))
    assert told != sorted(told), "with this seed one overtakes another"
    assert seconds < 7 * 30 / 2
    assert PretendedWorkers(problem, 3, 5).free


def test_what_more_workers_change_is_taken_run_by_run() -> None:
    known = {
        (workers, seed): {"share": [0.5 + 0.1 * seed + (0.02 if workers == 2 else 0.0)], "seconds": 60.0 / workers}
        for workers in (1, 2)
        for seed in range(4)
    }
    one, two = summary(known, range(4))
    assert (one["more than one"], one["interval"]) == ([0.0], [[0.0, 0.0]])
    assert (two["more than one"], two["interval"], two["times as fast"]) == ([0.02], [[0.02, 0.02]], 2.0)
