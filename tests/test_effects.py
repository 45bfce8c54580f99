"""What each pass bought, from parts of a trace that a stand-in measures: factors are known, so effects are."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from diffopt.bench.outcome import Failed, Fidelity, Latency, Measured, Memory, Outcome
from diffopt.effects import Effects, effects_lines, effects_of
from diffopt.passes.pipeline import Trace

if TYPE_CHECKING:
    from xdsl.dialects.builtin import ModuleOp

FACTORS = {
    "channels-last": 1.1,
    "fuse-qkv": 0.9,
    "guidance-window": 1.5,
    "cache-features": 2.0,
    "forecast-features": 0.95,
}


def outcome(ratio: float, psnr: float) -> Measured:
    return Measured(
        latency=Latency(ratio, ratio, ratio, 4, (ratio,) * 4, (1.0,) * 4),
        fidelity=Fidelity(psnr, psnr, psnr, 1.0, None, None, None, None, 2, (), psnr=(psnr, psnr)),
        memory=Memory(1, 1), build_s=0.0, load_s=0.0, first_call_s=0.0, witnesses=(), tier="near",
    )  # fmt: skip


class StandIn:
    """An evaluator whose programs have the product of their passes' factors."""

    def __init__(self, bad: str = "") -> None:
        self.measured: list[str] = []
        self._bad = bad

    def evaluate(self, program: Any, **options: object) -> Outcome:
        self.measured.append(program.name)
        names = [one.name for one in Trace.parse(program.name)]
        if self._bad in names:
            return Failed("crash", "boom")
        return outcome(math.prod(FACTORS[name] for name in names), 40.0 if "guidance-window" in names else 120.0)


def found(text: str, module: ModuleOp, evaluator: StandIn) -> Effects | str:
    return effects_of(evaluator, module, Trace.parse(text), recorded=(1.0, 9.0))  # type: ignore[arg-type]


def test_factors_that_multiply_are_found_again_and_come_to_the_whole(standard_module: ModuleOp) -> None:
    evaluator = StandIn()
    effects = found("channels-last,fuse-qkv,guidance-window{stop=0.5}", standard_module, evaluator)
    assert isinstance(effects, Effects)
    assert [math.exp(e.shapley) for e in effects.latency.effects] == pytest.approx([1.1, 0.9, 1.5])
    assert [math.exp(e.left_out) for e in effects.latency.effects] == pytest.approx([1.1, 0.9, 1.5])
    assert math.exp(effects.latency.total) == pytest.approx(1.1 * 0.9 * 1.5)
    assert [e.shapley for e in effects.images.effects] == pytest.approx([0.0, 0.0, 2.55], abs=0.01)
    assert len(evaluator.measured) == len(set(evaluator.measured)) == effects.programs == 7
    assert "together 1.485x; measured 1.485x" in "\n".join(effects_lines(effects))


def test_a_part_that_cannot_be_made_counts_as_what_is_left_of_it(standard_module: ModuleOp) -> None:
    effects = found("cache-features{interval=3},forecast-features", standard_module, StandIn())
    assert isinstance(effects, Effects)
    assert effects.dropped == (("forecast-features", "forecast-features"),)
    assert sum(e.shapley for e in effects.latency.effects) == pytest.approx(math.log(2.0 * 0.95))


def test_a_part_that_does_not_run_is_said(standard_module: ModuleOp) -> None:
    effects = found("channels-last,fuse-qkv", standard_module, StandIn(bad="fuse-qkv"))
    assert effects == "fuse-qkv does not run: crash: boom"
