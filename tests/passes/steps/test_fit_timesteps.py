"""Timesteps one by one: they set how many steps there are, and the scheduler must take them."""

from __future__ import annotations

import pytest
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import scheduler_of, steps_of
from diffopt.ir.emit_statements import statements
from diffopt.ir.errors import DiffoptError
from diffopt.passes.base import Refusal
from diffopt.passes.pipeline import Trace, applied, run
from diffopt.passes.steps.fit_timesteps import ALIGNED, FitTimesteps, stretched


def test_the_timesteps_are_the_steps(standard_module: ModuleOp) -> None:
    module = applied(Trace((FitTimesteps(timesteps="900,400,20"),)), standard_module)
    assert steps_of(module) == 3
    assert scheduler_of(module).class_name.data == "diffusers.DPMSolverMultistepScheduler"
    codes = [statement.code for statement in statements(module)]
    assert codes[0].startswith("{pipe}.scheduler = DPMSolverMultistepScheduler.from_config(")
    assert codes[1] == 'fit_timesteps({pipe}, "scheduler", timesteps=[900, 400, 20])'


def test_stretched_timesteps_keep_their_ends() -> None:
    assert stretched(ALIGNED, 10) == ALIGNED
    assert stretched(ALIGNED, 2) == (999, 24)
    assert len(set(stretched(ALIGNED, 20))) == 20


@pytest.mark.parametrize("text", ["", "5,9", "9,9", "1001,2", "9,-1", "a,b", "9,,1", "9.5,2"])
def test_only_falling_whole_numbers_are_timesteps(text: str) -> None:
    with pytest.raises(DiffoptError, match="must be falling whole numbers"):
        FitTimesteps(timesteps=text)


def test_a_flow_takes_them_by_euler_alone(transformer_module: ModuleOp) -> None:
    refused = run(Trace((FitTimesteps(timesteps="1000,500"),)), transformer_module)
    assert isinstance(refused, Refusal)
    assert "euler solver only" in refused.reason
    module = applied(Trace((FitTimesteps(timesteps="1000,500", solver="euler"),)), transformer_module)
    assert scheduler_of(module).class_name.data == "diffusers.FlowMatchEulerDiscreteScheduler"
    assert list(FitTimesteps.space(transformer_module)) == []


def test_fixed_timesteps_are_not_reduced(standard_module: ModuleOp) -> None:
    refused = run(Trace.parse("fit-timesteps,reduce-steps{steps=5}"), standard_module)
    assert isinstance(refused, Refusal)
    assert "timesteps are fixed one by one" in refused.reason
