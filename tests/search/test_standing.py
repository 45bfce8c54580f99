"""A proposer that shows nothing waits, one that shows something is heard, and none can force the search to its plans."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from diffopt.bench.outcome import Failed
from diffopt.search.engine import Settings
from diffopt.search.records import Candidate, Trial
from diffopt.search.space import Legal
from diffopt.search.standing import disappointing
from diffopt.search.study.methods import searched
from diffopt.search.study.planner_quality import planners
from diffopt.search.study.synthetic import Synthetic

SLOW, FAST, SMALL = {"ratio": 0.9}, {"ratio": 2.0}, {"ratio": 0.9, "memory": 0.7}


def trials(outcome: Callable[..., Any], *told: tuple[str, dict[str, float] | None]) -> list[Trial]:
    return [
        Trial(Candidate(n, "fuse", f"k{n}", origin), Failed("crash", "no") if given is None else outcome(**given))
        for n, (origin, given) in enumerate(told)
    ]


@pytest.mark.parametrize(
    ("told", "doubted"),
    [
        ([("a", SLOW)], set()),
        ([("a", SLOW), ("a", None)], {"a"}),
        ([("a", SLOW), ("b", SLOW), ("a", FAST), ("a", SLOW)], set()),
        ([("a", FAST), ("a", SLOW), ("b", FAST), ("a", None)], {"a"}),
        ([("a", SLOW), ("a", SMALL)], set()),
    ],
)
def test_two_programs_in_a_row_without_a_gain_and_its_word_counts_no_more(
    outcome: Callable[..., Any], told: list[tuple[str, dict[str, float] | None]], doubted: set[str]
) -> None:
    assert disappointing(trials(outcome, *told)) == doubted


def test_an_adversarial_planner_gets_few_measurements_and_none_that_is_illegal() -> None:
    problem = Synthetic(seed=3)
    arms = planners(problem, 3)
    (adversary,) = arms["adversarial"]
    offered = adversary.propose(problem.module, (), 99)
    assert sum(not isinstance(problem.check(trace.passes), Legal) for trace in offered) > 0
    found = searched(problem, 10, 3, arms["adversarial"])
    assert all(isinstance(problem.check(problem.parse(t.candidate.trace).passes), Legal) for t in found)
    assert len({t.candidate.key for t in found}) == len(found)
    # Believed, it would have been given the whole opening of eight.
    assert sum(t.candidate.origin == "adversarial" for t in found) < Settings().opening
