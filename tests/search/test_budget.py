from __future__ import annotations

from collections.abc import Callable

import pytest

from diffopt.bench.outcome import Measured
from diffopt.ir.errors import DiffoptError
from diffopt.search.budget import Budget, measured_noise, no_gain_in_sight
from diffopt.search.goals import Constraints
from diffopt.search.records import Candidate, Trial


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


@pytest.mark.parametrize(("predicted", "stops"), [([0.001] * 4, True), ([0.001, 0.001, 0.4, 0.001], False)])
def test_it_stops_when_what_is_expected_drowns_in_noise(
    predicted: list[float], stops: bool, outcome: Callable[..., Measured], trial: Callable[..., Trial]
) -> None:
    candidates = [Candidate(i, "", f"k{i}", "variation", predicted=p) for i, p in enumerate(predicted)]
    reason = no_gain_in_sight(candidates, [trial(1, outcome(4.0, spread=0.05))], Constraints())
    assert (reason is not None) == stops


def test_seeds_that_no_model_chose_never_stop_the_search(
    outcome: Callable[..., Measured], trial: Callable[..., Trial]
) -> None:
    candidates = [Candidate(i, "", f"k{i}", "rules", predicted=None if i == 2 else 0.0) for i in range(4)]
    assert no_gain_in_sight(candidates, [trial(1, outcome(4.0))], Constraints()) is None
