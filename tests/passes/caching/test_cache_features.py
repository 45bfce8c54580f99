"""A static cache schedule marks every call of the denoiser alike."""

from __future__ import annotations

import pytest
from xdsl.dialects.builtin import ModuleOp, StringAttr

from diffopt.ir.dialect import denoiser_of, loops
from diffopt.passes.caching.cache_features import CacheFeatures
from diffopt.passes.pipeline import Trace, applied


@pytest.mark.parametrize("interval", [2, 3, 7, 20])
def test_every_interval_th_step_is_full(standard_module: ModuleOp, interval: int) -> None:
    module = applied(Trace((CacheFeatures(interval=interval, branch=1),)), standard_module)
    for predict in loops(module)[0].predicts:
        assert predict.full_steps == tuple(range(0, 50, interval))
        assert predict.branch is not None
        assert predict.branch.value.data == 1


def test_marks_both_loops_of_a_window(standard_module: ModuleOp) -> None:
    module = applied(Trace.parse("guidance-window,cache-features"), standard_module)
    plans = {predict.full_steps for loop in loops(module) for predict in loop.predicts}
    assert plans == {tuple(range(0, 50, 3))}


def test_refuses_a_denoiser_that_is_no_unet(standard_module: ModuleOp) -> None:
    module = standard_module.clone()
    denoiser_of(module).properties["class_name"] = StringAttr("diffusers.SD3Transformer2DModel")
    refused = CacheFeatures().refuse(module)
    assert refused is not None
    assert (refused.rule, refused.where) == ("wrong-kind", "@unet")


def test_refuses_an_interval_of_all_steps(standard_module: ModuleOp) -> None:
    short = applied(Trace.parse("reduce-steps{steps=3}"), standard_module)
    refused = CacheFeatures(interval=3).refuse(short)
    assert refused is not None
    assert refused.reason == "an interval of 3 does not fit into 3 steps"
    assert [(each.interval, each.schedule) for each in CacheFeatures.space(short)] == [(2, "uniform"), (2, "early")]


@pytest.mark.parametrize(("branch", "refused"), [(0, False), (1, False), (2, True), (3, True)])
def test_refuses_a_branch_with_nothing_below_it(standard_module: ModuleOp, branch: int, refused: bool) -> None:
    assert (CacheFeatures(branch=branch).refuse(standard_module) is not None) is refused
