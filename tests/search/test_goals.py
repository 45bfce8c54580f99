from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from diffopt.bench.outcome import Failed, Measured
from diffopt.ir.errors import DiffoptError
from diffopt.search.goals import Constraints, Level, objectives, violation, winners
from diffopt.search.records import Trial


def test_objectives_are_smaller_for_faster_truer_and_leaner(outcome: Callable[..., Measured]) -> None:
    base, better = objectives(outcome(1.0, 40.0, 1.0)), objectives(outcome(2.0, 50.0, 0.5))
    assert (better < base).all()
    assert np.allclose(base, [0.0, -40.0, 0.0])


def test_fidelity_beyond_the_ceiling_is_not_paid_for(outcome: Callable[..., Measured]) -> None:
    assert (objectives(outcome(1.0, 120.0)) == objectives(outcome(1.0, 85.0))).all()


def test_memory_noise_does_not_tell_programs_apart(outcome: Callable[..., Measured]) -> None:
    assert objectives(outcome(1.0, 60.0, 1.0))[2] == objectives(outcome(1.0, 60.0, 1.02))[2]


@pytest.mark.parametrize(
    ("constraints", "met", "missed"),
    [
        (Constraints(max_latency_s=0.3), {"ratio": 4.0}, {"ratio": 3.0}),
        (Constraints(min_psnr=45.0), {"psnr": 45.0}, {"psnr": 44.9}),
        (Constraints(tier="near"), {"tier": "exact"}, {"tier": "traded"}),
        (Constraints(tier="traded"), {"tier": "near"}, {"tier": "rejected"}),
        (Constraints(max_memory_bytes=100 * 2**20), {"memory": 1.0}, {"memory": 1.1}),
    ],
)
def test_a_constraint_is_met_or_missed(
    constraints: Constraints, met: dict[str, object], missed: dict[str, object], outcome: Callable[..., Measured]
) -> None:
    assert violation(constraints, outcome(**{"ratio": 2.0, **met}), {}) == 0
    assert violation(constraints, outcome(**{"ratio": 2.0, **missed}), {}) > 0


def test_kept_steps_are_a_fact_of_the_program(outcome: Callable[..., Measured]) -> None:
    assert violation(Constraints(keep_steps=True), outcome(2.0), {"steps_kept": 1.0}) == 0
    assert violation(Constraints(keep_steps=True), outcome(2.0), {"steps_kept": 0.0}) > 0


@pytest.mark.parametrize(
    "bad",
    [{"tier": "best"}, {"min_psnr": 0.0}, {"max_latency_s": -1.0}, {"max_memory_bytes": 0}, {"minimize": "speed"}],
)
def test_senseless_constraints_are_one_line(bad: dict[str, object]) -> None:
    with pytest.raises(DiffoptError):
        Constraints(**bad)  # type: ignore[arg-type]


def test_each_level_has_its_fastest(outcome: Callable[..., Measured], trial: Callable[..., Trial]) -> None:
    kept = trial(1, outcome(4.0, 60.0), kept=True)
    fine = trial(2, outcome(20.0, 46.0))
    near = trial(3, outcome(45.0, 36.0))
    traded = trial(4, outcome(60.0, 30.0))
    lost = trial(5, outcome(90.0, 15.0))
    found = winners([traded, lost, kept, near, fine])
    assert found == {"steps kept": kept, ">=45 dB": fine, "near": near, "traded": traded}


def test_a_sure_program_wins_over_a_lucky_one(outcome: Callable[..., Measured], trial: Callable[..., Trial]) -> None:
    lucky, sure = trial(1, outcome(10.5, spread=0.3)), trial(2, outcome(10.0, spread=0.01))
    assert winners([lucky, sure])["near"] == sure


def test_a_level_that_nothing_meets_has_no_winner(
    outcome: Callable[..., Measured], trial: Callable[..., Trial]
) -> None:
    assert winners([trial(1, outcome(5.0, 20.0)), trial(2, Failed("crash", "died"))]) == {}


def test_the_users_constraints_hold_at_every_level(
    outcome: Callable[..., Measured], trial: Callable[..., Trial]
) -> None:
    lean, fat = trial(1, outcome(4.0, memory=0.8)), trial(2, outcome(8.0, memory=2.0))
    levels = [Level("near", Constraints(tier="near"))]
    assert winners([lean, fat], levels, Constraints(max_memory_bytes=100 * 2**20)) == {"near": lean}


def test_where_memory_is_minimized_the_leanest_wins_and_of_equally_lean_ones_the_fastest(
    outcome: Callable[..., Measured], trial: Callable[..., Trial]
) -> None:
    fast, lean = trial(1, outcome(8.0, memory=1.0)), trial(2, outcome(2.0, memory=0.5))
    equal = trial(3, outcome(3.0, memory=0.505))
    assert winners([fast, lean, equal])["near"] == fast
    assert winners([fast, lean], constraints=Constraints(minimize="memory"))["near"] == lean
    assert winners([fast, lean, equal], constraints=Constraints(minimize="memory"))["near"] == equal
