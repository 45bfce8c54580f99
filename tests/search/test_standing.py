"""A proposer that shows nothing waits, one that shows something is heard, and none can force the search to its plans."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from diffopt.bench.outcome import Failed
from diffopt.search.goals import Constraints
from diffopt.search.history import read
from diffopt.search.records import Candidate, Trial
from diffopt.search.space import Legal
from diffopt.search.standing import disappointing, unearned
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


def unearned_of(outcome: Callable[..., Any], *told: tuple[str, dict[str, float] | None], asked: int = 0) -> set[str]:
    """Return which of `a` and `b`, both from outside, wait; `asked` more of `a` are being measured."""
    found = trials(outcome, *told)
    waiting = [Candidate(100 + n, "fuse", f"w{n}", "a") for n in range(asked)]
    history = read(found, Constraints(), Synthetic())
    return set(unearned({"a", "b"}, [*(trial.candidate for trial in found), *waiting], history))


def test_a_planner_from_outside_has_one_program_on_credit(outcome: Callable[..., Any]) -> None:
    assert unearned_of(outcome) == set()
    assert unearned_of(outcome, ("a", FAST)) == {"a"}, "good or not, there is nothing to compare it with"
    assert unearned_of(outcome, asked=1) == {"a"}
    assert unearned_of(outcome, ("rules", FAST), asked=1) == set()
    assert unearned_of(outcome, ("rules", FAST), asked=2) == {"a"}


def test_it_goes_on_while_its_programs_are_worth_as_much_as_those_of_others(outcome: Callable[..., Any]) -> None:
    better, worse = {"ratio": 3.0}, {"ratio": 1.5}
    assert unearned_of(outcome, ("a", better), ("walk", worse)) == set()
    assert unearned_of(outcome, ("a", worse), ("walk", better)) == {"a"}
    assert unearned_of(outcome, ("a", worse), ("walk", better), ("a", {"ratio": 9.0})) == set()
    assert unearned_of(outcome, ("a", better), ("walk", better), ("a", None)) == {"a"}, "a failure is worth nothing"
    assert unearned_of(outcome, ("a", SLOW), ("walk", SLOW), ("a", SLOW)) == {"a"}, "nor do two zeros make it equal"


def test_those_vouched_for_are_measured_in_their_order() -> None:
    problem = Synthetic(seed=3)
    rules = tuple(problem.seeds())
    texts = [str(trace) for trace in rules[0].propose(problem.module, (), 6)]
    assert [t.candidate.trace for t in searched(problem, 5, 3, rules)] == texts[:5]


def test_an_adversarial_planner_gets_one_measurement_before_there_is_a_surrogate_and_none_that_is_illegal() -> None:
    problem = Synthetic(seed=3)
    arms = planners(problem, 3)
    (adversary,) = arms["adversarial"]
    offered = adversary.propose(problem.module, (), 99)
    assert sum(not isinstance(problem.check(trace.passes), Legal) for trace in offered) > 0
    found = searched(problem, 8, 3, arms["adversarial"])
    assert all(isinstance(problem.check(problem.parse(t.candidate.trace).passes), Legal) for t in found)
    assert len({t.candidate.key for t in found}) == len(found)
    # Believed, it would have been given the whole opening of eight.
    assert [t.candidate.origin == "adversarial" for t in found[:4]] == [True, False, False, False]


def test_a_good_planner_from_outside_keeps_most_of_the_opening() -> None:
    problem = Synthetic(seed=3)
    found = searched(problem, 6, 3, planners(problem, 3)["expert"])
    assert sum(t.candidate.origin == "expert" for t in found) >= 3
