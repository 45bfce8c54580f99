from __future__ import annotations

import numpy as np
import pytest

from diffopt.search.design import Part, Rows, design
from diffopt.search.head import NATURAL, Amdahl, Energies, Formula, Sums, fit_head
from diffopt.search.head import _fitted as fitted
from diffopt.search.head import _kernel as kernel

PARTS = tuple(
    Part(name, usual, known=tuple({name: 1.0, f"{name}.n": n} for n in (1.0, 2.0, 4.0)))
    for name, usual in (("a", 80.0), ("b", 50.0), ("c", 35.0))
)
FORMULAS: tuple[Formula, ...] = (
    Sums(0.3, (1.0, 0.1)),
    Amdahl(Sums(0.3, (1.0, 0.1)), (-3.0, 1.0)),
    Energies(1.5, -80 / NATURAL),
)


def programs(count: int, seed: int = 0) -> list[dict[str, float]]:
    rng = np.random.default_rng(seed)
    found: list[dict[str, float]] = [{}]
    while len(found) < count:
        chosen = [part.name for part in PARTS if rng.random() < 0.6]
        found.append({k: v for name in chosen for k, v in ((name, 1.0), (f"{name}.n", float(rng.integers(1, 5))))})
    return found


def rows_of(count: int, seed: int = 0) -> Rows:
    return design(programs(24), PARTS).rows(programs(count, seed))


@pytest.mark.parametrize("formula", FORMULAS)
def test_derivatives_are_those_of_the_value(formula: Formula) -> None:
    rows = rows_of(12)
    theta = formula.prior(rows, PARTS)[0] + np.random.default_rng(1).normal(0, 0.2, len(formula.prior(rows, PARTS)[0]))
    _, jacobian = formula.value(rows, theta)
    for at in range(len(theta)):
        step = np.zeros_like(theta)
        step[at] = 1e-5
        numeric = (formula.value(rows, theta + step)[0] - formula.value(rows, theta - step)[0]) / 2e-5
        assert jacobian[:, at] == pytest.approx(numeric, abs=1e-4)


def test_the_largest_error_decides() -> None:
    formula, rows = FORMULAS[2], rows_of(24)
    theta = formula.prior(rows, PARTS)[0]
    psnr = -NATURAL * formula.value(rows, theta)[0]
    both = rows.present[:, 1:].sum(axis=1) == 2
    assert psnr[both] == pytest.approx(-NATURAL * np.log(10**-5 + 10**-3.5), abs=1.0)
    assert psnr[rows.present.sum(axis=1) == 0] == pytest.approx(80.0)


def test_leave_one_out_is_what_fitting_without_the_point_gives() -> None:
    formula, rows = Sums(0.3, (1.0, 0.1)), rows_of(12)
    target = rows.present @ np.array([0.2, -0.4, -0.6])
    prior = formula.prior(rows, PARTS)
    whole = fitted(formula, rows, target, kernel(rows, rows), 0.1, 0.01, prior, prior[0])
    rest = [i for i in range(12) if i != 5]
    without = Rows(
        rows.present[rest], tuple(o[rest] for o in rows.options), rows.work[rest], rows.scaled[rest], rows.strange[rest]
    )
    part = fitted(formula, without, target[rest], kernel(without, without), 0.1, 0.01, prior, prior[0])
    one = Rows(
        rows.present[5:6], tuple(o[5:6] for o in rows.options), rows.work[5:6], rows.scaled[5:6], rows.strange[5:6]
    )
    assert part.predict(one)[0] == pytest.approx(whole.left_out[5:6])


def test_what_was_measured_is_predicted_and_less_doubted_than_the_rest() -> None:
    formula, rows = FORMULAS[0], rows_of(14)
    target = rows.present @ np.array([0.2, -0.4, -0.6])
    head = fit_head(formula, rows, target, PARTS)
    mean, deviation = head.predict(rows)
    assert mean == pytest.approx(target, abs=0.05)
    assert deviation.mean() < head.predict(rows_of(14, seed=9))[1].mean()


def test_a_fixed_part_of_the_time_is_found() -> None:
    formula = FORMULAS[1]
    made = design([{"log calls": 4.0}, *({"log calls": float(np.log(n))} for n in (1, 2, 4, 8, 16, 32))], ())
    calls = np.array([np.exp(4.0), 1, 2, 4, 8, 16, 32])
    rows = made.rows([{"log calls": float(np.log(n))} for n in calls])
    target = np.log(0.1 + 0.9 * calls / calls[0])
    mean, _ = fit_head(formula, rows, target, ()).predict(made.rows([{"log calls": 0.0}]))
    assert mean == pytest.approx([target[1]], abs=0.15)


def test_what_is_being_measured_is_as_unsure_as_it_will_be_and_means_stay() -> None:
    made, every = design(programs(24), PARTS), programs(24)
    all_rows, first, pending = (made.rows(part) for part in (every, every[:20], every[20:]))
    target = np.random.default_rng(2).normal(0, 0.3, 24)
    formula = Sums(0.3, (1.0, 0.1))
    prior = formula.prior(all_rows, PARTS)
    before = fitted(formula, first, target[:20], kernel(first, first), 0.4, 0.01, prior, prior[0])
    after = fitted(formula, all_rows, target, kernel(all_rows, all_rows), 0.4, 0.01, prior, prior[0])
    others = made.rows(programs(10, seed=5))
    mean, narrowed = before.predict(others, pending)
    usual, deviation = before.predict(others)
    assert mean == pytest.approx(usual)
    assert narrowed == pytest.approx(after.predict(others)[1])
    assert (narrowed < deviation).any()
