"""Fewer steps: the scheduler changes, the loops shrink, and their parts keep their share."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from xdsl.dialects.builtin import ModuleOp, StringAttr

from diffopt.ir.dialect import components, loops, scheduler_of, steps_of
from diffopt.ir.identity import context
from diffopt.passes.base import Refusal
from diffopt.passes.pipeline import Trace, applied, run
from diffopt.passes.steps.reduce_steps import ReduceSteps
from diffopt.passes.steps.solvers import SOLVERS


def test_the_scheduler_keeps_its_own_configuration(standard_module: ModuleOp) -> None:
    scheduler = scheduler_of(applied(Trace((ReduceSteps(steps=12, solver="unipc"),)), standard_module))
    assert scheduler.class_name.data == "diffusers.UniPCMultistepScheduler"
    assert scheduler.config == scheduler_of(standard_module).config
    assert scheduler.values["overrides"] == {"solver_order": 2, "timestep_spacing": "trailing"}
    assert scheduler.values["steps"] == 12


@pytest.mark.slow
@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_is_a_scheduler_of_diffusers_that_takes_its_overrides(
    standard_module: ModuleOp, solver: str
) -> None:
    import diffusers

    scheduler = scheduler_of(applied(Trace.parse(f"reduce-steps{{steps=6 solver={solver}}}"), standard_module))
    overrides = scheduler.values["overrides"]
    assert isinstance(overrides, dict)
    own = diffusers.DDIMScheduler(**scheduler.config)
    made = getattr(diffusers, scheduler.class_name.data.split(".")[1]).from_config(own.config, **overrides)
    expected = {**overrides, "beta_end": scheduler.config["beta_end"], "prediction_type": "v_prediction"}
    for key, value in expected.items():
        assert made.config[key] == value
    made.set_timesteps(6)
    assert len(made.timesteps) == (11 if solver == "heun" else 6)


FLOWS = ["own", "euler", "heun", "dpmsolver++", "unipc"]


@pytest.mark.slow
@pytest.mark.parametrize("solver", FLOWS)
def test_a_flow_solver_starts_at_noise_and_keeps_the_shift(transformer_module: ModuleOp, solver: str) -> None:
    import diffusers

    scheduler = scheduler_of(applied(Trace.parse(f"reduce-steps{{steps=6 solver={solver}}}"), transformer_module))
    own = diffusers.FlowMatchEulerDiscreteScheduler(**scheduler.config)
    overrides = scheduler.values.get("overrides", {})
    assert isinstance(overrides, dict)
    made = getattr(diffusers, scheduler.class_name.data.split(".")[1]).from_config(own.config, **overrides)
    made.set_timesteps(6)
    assert made.config.get("shift", made.config.get("flow_shift")) == 3.0
    # Straight from noise to the image 0: the velocity is the noise itself, and every solver is exact on a line.
    noise = torch.randn(1, 2, generator=torch.Generator().manual_seed(0))
    sample = noise
    for step in made.timesteps:
        sample = made.step(noise, step, sample, return_dict=False)[0]
    assert sample.abs().max() < 0.02


def test_a_flow_is_offered_its_own_solvers_only(transformer_module: ModuleOp) -> None:
    assert [each.solver for each in ReduceSteps.space(transformer_module) if each.steps == 6] == FLOWS
    refused = ReduceSteps(solver="deis").refuse(transformer_module)
    assert refused is not None
    assert refused.reason.endswith("deis does not integrate flows")


@pytest.mark.parametrize(
    ("config", "pipeline", "solver", "reason"),
    [
        ({"use_dynamic_shifting": True}, "StableDiffusion3Pipeline", "heun", "which heun does not do"),
        ({"shift_terminal": 0.1}, "StableDiffusion3Pipeline", "unipc", "which unipc does not keep"),
        ({"shift": 1.0}, "FluxPipeline", "unipc", "which unipc was not told to"),
        ({"use_dynamic_shifting": True}, "FluxPipeline", "dpmsolver++", ""),
        ({"shift": 1.0}, "FluxPipeline", "euler", ""),
    ],
)
def test_refuses_a_solver_that_would_not_keep_the_schedule(
    transformer_module: ModuleOp, config: dict[str, bool | float], pipeline: str, solver: Any, reason: str
) -> None:
    module = transformer_module.clone()
    scheduler_of(module).set_value("config", {**config})
    components(module)["pipeline"].properties["class_name"] = StringAttr(f"diffusers.{pipeline}")
    refused = ReduceSteps(solver=solver).refuse(module)
    assert (refused.reason.endswith(reason) if refused is not None else reason == "") is True


def test_heun_and_a_plan_of_steps_refuse_each_other(standard_module: ModuleOp) -> None:
    twice = "the Heun solver asks the denoiser twice a step: no plan of steps counts that yet"
    for plan in ("guidance-window", "cache-features", "reuse-unconditional", "split-guidance-batch"):
        found = run(Trace.parse(f"reduce-steps{{solver=heun}},{plan}"), standard_module)
        assert isinstance(found, Refusal)
        assert found.reason == twice
    found = run(Trace.parse("guidance-window,reduce-steps{solver=heun}"), standard_module)
    assert isinstance(found, Refusal)
    assert "a plan says already" in found.reason


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


def test_the_space_has_only_fewer_steps(standard_module: ModuleOp) -> None:
    short = applied(Trace.parse("reduce-steps{steps=5}"), standard_module)
    assert {instance.steps for instance in ReduceSteps.space(short)} == {2, 3, 4}
