from __future__ import annotations

from collections.abc import Callable

from diffopt.bench.outcome import Failed
from diffopt.search.archive import ArchiveProposer
from diffopt.search.records import Trial
from diffopt.search.study.synthetic import Synthetic


def test_the_best_of_other_runs_come_first_and_failures_never(
    trial: Callable[..., Trial], outcome: Callable[..., object]
) -> None:
    problem = Synthetic()
    trials = (
        trial(1, outcome(1.2, 60.0), trace="fuse"),
        trial(2, outcome(5.0, 60.0), trace="layout"),
        trial(3, Failed("crash", "died"), trace="graph"),
        trial(4, outcome(5.5, 40.0), trace="tile{size=16}"),
    )
    proposed = ArchiveProposer(trials, problem).propose(problem.module, (), 3)
    assert {str(trace) for trace in proposed[:2]} == {"layout", "tile{size=16}"}
    assert str(proposed[2]) == "fuse"


def test_a_pass_that_there_is_no_more_is_left_out(trial: Callable[..., Trial], outcome: Callable[..., object]) -> None:
    trials = (trial(1, outcome(2.0), trace="gone{size=3}"),)
    assert ArchiveProposer(trials).propose(Synthetic().module, (), 3) == []


def test_without_trials_nothing_is_proposed() -> None:
    assert ArchiveProposer(()).propose(Synthetic().module, (), 3) == []
