from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from diffopt.bench.outcome import Failed, Measured
from diffopt.ir.errors import DiffoptError
from diffopt.search.budget import Budget, measured_noise, no_gain_in_sight, realised
from diffopt.search.goals import Constraints
from diffopt.search.records import Trial


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("40", Budget(candidates=40)),
        ("90s", Budget(seconds=90)),
        ("10m", Budget(seconds=600)),
        (" 2min ", Budget(seconds=120)),
        ("1.5h", Budget(seconds=5400)),
    ],
)
def test_budgets_as_users_write_them(text: str, expected: Budget) -> None:
    assert Budget.parse(text) == expected


@pytest.mark.parametrize("text", ["", "ten", "10 m", "-5", "0", "0s", "2.5", "5d", "1e3", "10m20s", "nan", "٣"])
def test_nonsense_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(DiffoptError, match=r"budget|number of candidates"):
        Budget.parse(text)


def test_a_budget_is_spent_at_its_limit() -> None:
    assert Budget(candidates=3).spent(1e9, 2) is None
    assert Budget(candidates=3).spent(0, 3) == "3 candidates measured"
    assert Budget(seconds=60).spent(59, 1000) is None
    assert Budget(seconds=60).spent(60, 0) == "60 s used"
    assert Budget().spent(1e9, 10**6) is None


def test_noise_grows_with_the_interval(outcome: Callable[..., Measured], trial: Callable[..., Trial]) -> None:
    quiet = measured_noise([trial(1, outcome(4.0, spread=0.01))], Constraints())
    loud = measured_noise([trial(1, outcome(4.0, spread=0.1))], Constraints())
    assert quiet is not None
    assert loud is not None
    assert 0 < quiet < loud
    assert measured_noise([], Constraints()) is None


def chosen(trial: Trial, predicted: float | None) -> Trial:
    return replace(trial, candidate=replace(trial.candidate, predicted=predicted))


def test_what_a_trial_brought_is_its_share_of_front_and_levels(
    outcome: Callable[..., Measured], trial: Callable[..., Trial]
) -> None:
    trials = [trial(1, outcome(2.0)), trial(2, outcome(1.5)), trial(3, Failed("crash", "died")), trial(4, outcome(4.0))]
    first, worse, failed, better = realised(trials, Constraints())
    assert first > 0
    assert worse == failed == 0
    # Twice as fast at three of the four levels (no program keeps the steps), and a larger front.
    assert better > 0.75 * math.log(2)


def test_it_stops_when_choices_bring_nothing(outcome: Callable[..., Measured], trial: Callable[..., Trial]) -> None:
    trials = [trial(0, outcome(4.0))] + [chosen(trial(n, outcome(3.0)), 0.5) for n in range(1, 17)]
    assert "under the noise" in (no_gain_in_sight(trials, Constraints()) or "")
    assert no_gain_in_sight(trials[:-1], Constraints()) is None


def test_it_goes_on_while_choices_bring_what_was_expected(
    outcome: Callable[..., Measured], trial: Callable[..., Trial]
) -> None:
    trials = [trial(0, outcome(4.0))] + [chosen(trial(n, outcome(4.0 * 1.2**n)), 0.2) for n in range(1, 17)]
    assert no_gain_in_sight(trials, Constraints()) is None


def test_seeds_that_no_model_chose_never_stop_the_search(
    outcome: Callable[..., Measured], trial: Callable[..., Trial]
) -> None:
    trials = [trial(n, outcome(4.0)) for n in range(20)]
    assert no_gain_in_sight(trials, Constraints()) is None
