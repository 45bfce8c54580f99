"""Fewer steps: the scheduler changes, the loops shrink, and their parts keep their share."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xdsl.dialects.builtin import ModuleOp, StringAttr

from diffopt.ir.dialect import loops, scheduler_of, steps_of
from diffopt.ir.identity import context
from diffopt.passes.base import Refusal
from diffopt.passes.pipeline import Trace, applied, run
from diffopt.passes.steps.reduce_steps import SCHEDULERS, ReduceSteps


def test_the_scheduler_keeps_its_own_configuration(standard_module: ModuleOp) -> None:
    scheduler = scheduler_of(applied(Trace((ReduceSteps(steps=12, solver="unipc"),)), standard_module))
    assert scheduler.class_name.data == "diffusers.UniPCMultistepScheduler"
    assert scheduler.config == scheduler_of(standard_module).config
    assert scheduler.values["overrides"] == {"solver_order": 2, "timestep_spacing": "trailing"}
    assert scheduler.values["steps"] == 12


@pytest.mark.slow
@pytest.mark.parametrize("solver", SCHEDULERS)
def test_every_solver_is_a_scheduler_of_diffusers_that_takes_its_overrides(
    standard_module: ModuleOp, solver: str
) -> None:
    import diffusers

    class_name, overrides = SCHEDULERS[solver]
    config = scheduler_of(standard_module).config
    own = diffusers.DDIMScheduler(**config)
    made = getattr(diffusers, class_name.split(".")[1]).from_config(own.config, **overrides)
    for key, value in {**overrides, "beta_end": config["beta_end"], "prediction_type": "v_prediction"}.items():
        assert made.config[key] == value


@given(st.integers(1, 49), st.integers(1, 49))
def test_a_windowed_pipeline_keeps_its_two_loops(prepared: ModuleOp, cut: int, steps: int) -> None:
    module = prepared.clone()
    first, second = loops(module)
    first.set_bounds(0, cut)
    second.set_bounds(cut, 50)
    reduced = ReduceSteps(steps=steps)
    if reduced.refuse(module) is not None:
        assert steps == 1
        return
    reduced.apply(context(), module)
    bounds = [loop.bounds for loop in loops(module)]
    assert bounds[0][0] == 0
    assert bounds[0][1] == bounds[1][0]
    assert bounds[1][1] == steps == steps_of(module)
    assert all(start < stop for start, stop in bounds)
    assert abs(bounds[0][1] - cut * steps / 50) <= 1


@pytest.fixture(scope="module")
def prepared(standard_module: ModuleOp) -> ModuleOp:
    return applied(Trace.parse("guidance-window{stop=0.5}"), standard_module)


def test_refuses_more_loops_than_steps(prepared: ModuleOp) -> None:
    assert run(Trace((ReduceSteps(steps=1),)), prepared) == Refusal(
        "2 loops do not fit into 1 steps", "reduce-steps @scheduler"
    )


def test_refuses_a_flow_matching_pipeline_but_for_its_own_solver(standard_module: ModuleOp) -> None:
    module = standard_module.clone()
    scheduler_of(module).properties["class_name"] = StringAttr("diffusers.FlowMatchEulerDiscreteScheduler")
    refused = ReduceSteps().refuse(module)
    assert refused is not None
    assert refused.rule == "wrong-kind"
    assert ReduceSteps(solver="own").refuse(module) is None


def test_the_space_has_only_fewer_steps(standard_module: ModuleOp) -> None:
    short = applied(Trace.parse("reduce-steps{steps=5}"), standard_module)
    assert {instance.steps for instance in ReduceSteps.space(short)} == {2, 3, 4}
