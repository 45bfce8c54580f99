from __future__ import annotations

import math

import pytest
from xdsl.dialects.builtin import ModuleOp

from diffopt.passes.pipeline import Trace, applied
from diffopt.search.cost_model import Calls, Cost, CostModel, Measurement, calls_of, error_of, fit, making_of

TRUE = CostModel({"eager": Cost(0.02, 0.012), "engine": Cost(0.004, 0.002)}, shallow=0.3, single=0.6)


def measurement(making: str, calls: Calls, noise: float = 0.0) -> Measurement:
    seconds = TRUE.predict(making, calls)
    assert seconds is not None
    return Measurement(making, calls, seconds * math.exp(noise))


CALIBRATION = (
    measurement("eager", Calls(50)),
    measurement("eager", Calls(4)),
    measurement("eager", Calls(17, 33)),
    measurement("eager", Calls(30, 0, 20)),
    measurement("engine", Calls(50)),
    measurement("engine", Calls(2)),
)


def test_costs_measured_once_are_found_again() -> None:
    model = fit(CALIBRATION)
    assert (model.shallow, model.single) == pytest.approx((0.3, 0.6))
    for making, cost in TRUE.costs.items():
        assert model.costs[making].fixed == pytest.approx(cost.fixed)
        assert model.costs[making].call == pytest.approx(cost.call)


def test_programs_that_were_never_built_are_predicted() -> None:
    unseen = [measurement(m, Calls(n, 10, n)) for m in TRUE.costs for n in (3, 8, 20, 40)]
    error = error_of(fit(CALIBRATION), unseen)
    assert error.worst < 1e-6
    assert error.correlation == pytest.approx(1.0)
    assert (error.predicted, error.unknown) == (8, 0)


def test_one_program_of_a_kind_gives_a_guess_and_none_gives_none() -> None:
    model = fit([*CALIBRATION[:2], measurement("engine", Calls(50))])
    guess = model.predict("engine", Calls(10))
    assert guess == pytest.approx(0.024, rel=0.3)
    assert model.predict("unheard of", Calls(10)) is None
    assert error_of(model, [Measurement("unheard of", Calls(1), 1.0)]).unknown == 1


def test_costs_are_never_negative() -> None:
    model = fit([Measurement("a", Calls(10), 0.1), Measurement("a", Calls(20), 0.3)])
    assert model.costs["a"].fixed >= 0
    assert model.costs["a"].call >= 0


def test_calls_are_counted_from_the_loop(module: ModuleOp) -> None:
    def calls(trace: str) -> Calls:
        return calls_of(applied(Trace.parse(trace), module))

    assert calls_of(module) == Calls(guided=50)
    assert calls("cache-features{interval=5}") == Calls(guided=10, guided_shallow=40)
    windowed = calls("guidance-window{stop=0.6}")
    assert (windowed.guided, windowed.alone) == (30, 20)
    assert calls("reduce-steps{steps=10}") == Calls(guided=10)


def test_a_making_is_what_was_done_to_the_parts_and_not_when_they_are_called(module: ModuleOp) -> None:
    def making(trace: str) -> str:
        return making_of(applied(Trace.parse(trace), module))

    assert making("reduce-steps{steps=10}") == making("cache-features{interval=3}") == making_of(module)
    assert making("channels-last") != making_of(module)
