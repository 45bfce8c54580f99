"""A guidance window splits the loop and drops the unconditional call behind it."""

from __future__ import annotations

from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import loops
from diffopt.ir.identity import module_hash, print_module
from diffopt.passes.guidance.guidance_window import GuidanceWindow
from diffopt.passes.pipeline import Trace, applied, run


def test_splits_the_loop_and_keeps_the_conditional_call(standard_module: ModuleOp) -> None:
    first, second = loops(applied(Trace.parse("guidance-window{stop=0.6}"), standard_module))
    assert (first.bounds, second.bounds) == ((0, 30), (30, 50))
    assert second.initial is first.result
    assert len(first.predicts) == 2
    assert [p.embedding for p in second.predicts] == [first.predicts[1].embedding]
    assert first.guide is not None
    assert second.guide is None


def test_what_came_after_the_loop_takes_the_new_result(standard_module: ModuleOp) -> None:
    module = applied(Trace.parse("guidance-window{stop=0.6}"), standard_module)
    text = print_module(module)
    last = loops(module)[1].result
    assert [use.operation.name for use in last.uses] == ["diffusion.decode"]
    assert text.count("diffusion.denoise") == 2


def test_a_window_of_nothing_is_the_pipeline_without_guidance(standard_module: ModuleOp) -> None:
    module = applied(Trace.parse("guidance-window{stop=0}"), standard_module)
    (loop,) = loops(module)
    assert loop.bounds == (0, 50)
    assert loop.guide is None
    assert print_module(module).count("diffusion.encode") == 1


def test_keeps_a_cache_schedule_that_is_there(standard_module: ModuleOp) -> None:
    first, second = loops(applied(Trace.parse("cache-features{interval=7},guidance-window"), standard_module))
    assert first.predicts[0].full_steps == second.predicts[0].full_steps == tuple(range(0, 50, 7))


def test_windows_of_one_cut_are_one_candidate(standard_module: ModuleOp) -> None:
    hashes = {
        module_hash(applied(Trace((GuidanceWindow(stop=stop),)), standard_module)) for stop in (0.6, 0.601, 0.599)
    }
    assert len(hashes) == 1


def test_refuses_a_pipeline_without_guidance(standard_module: ModuleOp) -> None:
    result = run(Trace.parse("guidance-window{stop=0},guidance-window"), standard_module)
    assert str(result) == ("guidance-window diffusion.denoise: there is no classifier-free guidance [needs-guidance]")


def test_the_space_offers_each_cut_once(standard_module: ModuleOp) -> None:
    short = applied(Trace.parse("reduce-steps{steps=4}"), standard_module)
    assert [round(instance.stop * 4) for instance in GuidanceWindow.space(short)] == [3, 2, 1]
