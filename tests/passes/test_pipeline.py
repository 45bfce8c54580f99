"""Traces: their text, what running them gives, and how passes get on with each other."""

from __future__ import annotations

import ast
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import loops, scheduler_of, steps_of
from diffopt.ir.emit_pipeline import emit_pipeline
from diffopt.ir.errors import DiffoptError
from diffopt.ir.identity import module_hash, parse_module, print_module
from diffopt.ir.verify import Stage, verify
from diffopt.passes.base import DiffusionPass, Refusal, registry
from diffopt.passes.caching.cache_features import CacheFeatures
from diffopt.passes.guidance.guidance_window import GuidanceWindow
from diffopt.passes.pipeline import Trace, applied, key, run
from diffopt.passes.steps.reduce_steps import ReduceSteps

DEFAULTS = [pass_type() for pass_type in registry().values()]
IMPORTED = {"torch", "diffusers", "pathlib", "diffopt.backends.runtime"}


def _error(text: str) -> str:
    with pytest.raises(DiffoptError) as caught:
        Trace.parse(text)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def _check_result(result: ModuleOp | Refusal, *names: str) -> None:
    """Check that a result is a pipeline which can be emitted, or a sentence of one of the passes named."""
    if isinstance(result, Refusal):
        assert re.match(r"[A-Za-z0-9@]", result.reason)
        assert len(result.reason.split()) >= 3
        assert not result.reason.endswith(".")
        assert len(str(result).splitlines()) == 1
        assert result.where.split()[0] in names
        return
    assert verify(result, Stage.EMITTABLE) == ()
    code = emit_pipeline(result)
    compile(code, "pipeline.py", "exec")
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            assert {alias.name for alias in node.names} <= IMPORTED
        if isinstance(node, ast.ImportFrom):
            assert node.module in IMPORTED


@pytest.mark.parametrize("first", DEFAULTS, ids=lambda each: each.name)
def test_every_pair_gives_a_pipeline_or_a_reason(standard_module: ModuleOp, first: DiffusionPass) -> None:
    one = run(Trace((first,)), standard_module)
    _check_result(one, first.name)
    if isinstance(one, Refusal):  # and so is every pair that it begins
        assert run(Trace((first, DEFAULTS[0])), standard_module) == one
        return
    for second in DEFAULTS:
        try:
            _check_result(run(Trace((second,)), one), second.name)
        except AssertionError as error:
            error.add_note(f"{first}, then {second}")
            raise


@settings(max_examples=25)
@given(st.lists(st.sampled_from(sorted(registry())), max_size=6), st.data())
def test_every_trace_gives_a_pipeline_or_a_reason(module_text: str, names: list[str], data: st.DataObject) -> None:
    module = parse_module(module_text)
    instances = tuple(
        data.draw(st.sampled_from(list(registry()[name].space(module)) or [registry()[name]()])) for name in names
    )
    trace = Trace(instances)
    result = run(trace, module)
    _check_result(result, *names)
    assert Trace.parse(str(trace)) == trace
    assert print_module(module) == module_text
    assert key(trace, module) == (result if isinstance(result, Refusal) else module_hash(result))


@pytest.fixture(scope="module")
def module_text(standard_module: ModuleOp) -> str:
    return print_module(standard_module)


def _cut(module: ModuleOp | Refusal, steps: int) -> int:
    """Return how many steps are guided; a window refused for covering everything guides all."""
    if isinstance(module, Refusal):
        if "holds none of" in module.reason:
            return 0
        assert "covers all" in module.reason
        return steps
    return sum(stop - start for loop in loops(module) for start, stop in [loop.bounds] if loop.guide)


@pytest.mark.parametrize("stop", [0.1, 0.3, 0.45, 0.6, 0.75, 0.9, 0.97])
@pytest.mark.parametrize("steps", [2, 3, 4, 7, 12, 20, 25])
def test_steps_and_window_commute_up_to_one_step(standard_module: ModuleOp, steps: int, stop: float) -> None:
    reduce, window = ReduceSteps(steps=steps), GuidanceWindow(stop=stop)
    one, two = (run(Trace(trace), standard_module) for trace in ((reduce, window), (window, reduce)))
    assert isinstance(two, ModuleOp)
    assert steps_of(two) == steps
    assert abs(_cut(one, steps) - _cut(two, steps)) <= 1
    if isinstance(one, ModuleOp) and _cut(one, steps) == _cut(two, steps):
        assert module_hash(one) == module_hash(two), "equal windows are one candidate"


def test_window_and_cache_commute(standard_module: ModuleOp) -> None:
    window, cache = GuidanceWindow(stop=0.6), CacheFeatures(interval=4)
    assert key(Trace((window, cache)), standard_module) == key(Trace((cache, window)), standard_module)


def test_the_empty_trace_is_the_module_itself(standard_module: ModuleOp) -> None:
    result = run(Trace(), standard_module)
    assert isinstance(result, ModuleOp)
    assert result is not standard_module
    assert key(Trace(), standard_module) == module_hash(standard_module)
    assert Trace.parse("") == Trace.parse("  ") == Trace()
    assert str(Trace()) == ""


def test_a_refusal_names_the_pass_and_the_rule(standard_module: ModuleOp) -> None:
    result = run(Trace.parse("export,quantize"), standard_module)
    assert result == Refusal("quantize must come before export, which stands there already", "quantize @unet", "order")
    with pytest.raises(DiffoptError, match=r"^quantize @unet: quantize must come before export.*\[order\]$"):
        applied(Trace.parse("export,quantize"), standard_module)


def test_a_module_that_is_wrong_as_given_is_an_error(module_text: str) -> None:
    wrong = parse_module(module_text.replace("steps 0 to 50", "steps 0 to 20"))
    with pytest.raises(DiffoptError, match=r"@scheduler: the scheduler declares 50 steps and the loops run 20 \["):
        run(Trace(), wrong)


def test_dead_guidance_is_removed(standard_module: ModuleOp) -> None:
    text = print_module(applied(Trace.parse("guidance-window{stop=0}"), standard_module))
    assert "%negative)" not in text
    assert "diffusion.guide" not in text


@pytest.mark.parametrize(
    "text",
    [
        "reduce-steps{steps=12 solver=deis}",
        "reduce-steps{steps=12,solver=deis}",
        ' reduce-steps { steps = 12 , solver = "deis" } '.replace("s {", "s{"),
        "reduce-steps{steps=12 solver='deis'}",
        "reduce-steps{steps=12 solver=deis spacing=trailing}",
    ],
)
def test_options_may_be_parted_and_quoted_as_one_likes(text: str) -> None:
    assert Trace.parse(text) == Trace((ReduceSteps(steps=12, solver="deis"),))


def test_several_passes_keep_their_order() -> None:
    trace = Trace.parse("guidance-window{stop=0.5}, cache-features ,reduce-steps{steps=3}")
    assert [p.name for p in trace] == ["guidance-window", "cache-features", "reduce-steps"]
    assert len(trace) == 3


@pytest.mark.parametrize("stop", ["1e-7", "1e-13", "5e-324", "0.1", "0", ".5", "1E-1", "0.30000000000000004"])
def test_a_float_reads_back_however_small(stop: str) -> None:
    trace = Trace.parse(f"guidance-window{{stop={stop}}}")
    assert trace == Trace((GuidanceWindow(stop=float(stop)),))
    assert Trace.parse(str(trace)) == trace


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("reduce-step", "--passes: unknown pass 'reduce-step'; did you mean reduce-steps?"),
        ("fly", "--passes: unknown pass 'fly'; known: distill-lora, "),
        ("reduce-steps{step=3}", "reduce-steps: unknown option 'step'; did you mean steps?"),
        ("reduce-steps{steps=0}", "reduce-steps: option steps=0 must be from 1 to 1000"),
        ("reduce-steps{steps=2.5}", "reduce-steps: option steps=2.5 must be of type int"),
        ("reduce-steps{steps=true}", "reduce-steps: option steps=True must be of type int"),
        ("reduce-steps{steps=many}", "reduce-steps: option steps=many must be of type int"),
        ("reduce-steps{solver=plms}", "reduce-steps: option solver=plms must be one of own, ddim, "),
        ("guidance-window{stop=1}", "guidance-window: option stop=1.0 must be a fraction"),
        ("guidance-window{stop=nan}", "guidance-window: option stop=nan must be of type float"),
        ("guidance-window{stop=1e999}", "guidance-window: option stop=1e999 must be of type float"),
        ("guidance-window{stop=1e-999999999}", ""),
        ("guidance-window{stop=1" + "0" * 400 + "}", "must be of type float"),
        ("guidance-window{stop=0.5 stop=0.6}", "option stop is given twice"),
        ("reduce-steps{steps}", "'steps' is not of the form option=value"),
        ("reduce-steps{steps=}", "is not of the form option=value"),
        ("reduce-steps{steps=3", "cannot read the passes 'reduce-steps{steps=3'"),
        ("reduce-steps}", "cannot read the passes"),
        ("reduce-steps,,quantize", "cannot read the passes"),
        ("reduce-steps quantize", "cannot read the passes"),
        ("{", "cannot read the passes"),
        ("a{", "cannot read the passes"),
        ("mlir-opt[x]", ""),
    ],
)
def test_a_text_that_is_no_trace_is_one_line(text: str, said: str) -> None:
    if said:
        assert said in _error(text)
    else:
        _check_text(text)


def _check_text(text: str) -> None:
    try:
        trace = Trace.parse(text)
    except DiffoptError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017
        return
    assert Trace.parse(str(trace)) == trace


PIECES = st.sampled_from(
    ["reduce-steps", "guidance-window", "quantize", "{", "}", "steps", "stop", "=", "3", "0.5", "1e-9"]
)


@settings(max_examples=200)
@given(
    st.one_of(st.text(), st.lists(st.one_of(PIECES, st.sampled_from(list(" ,\"'[]\\\n-."))), max_size=10).map("".join))
)
@example("reduce-steps{steps=٣}")
@example("reduce-steps{steps=1_0}")
@example("reduce-steps{steps=" + "9" * 5000 + "}")
@example('quantize{scheme="\\"}')
def test_any_text_is_a_trace_or_one_line(text: str) -> None:
    _check_text(text)


def test_reducing_steps_with_the_own_solver_keeps_the_scheduler(standard_module: ModuleOp) -> None:
    module = applied(Trace.parse("reduce-steps{steps=10 solver=own}"), standard_module)
    assert scheduler_of(module).class_name.data == "diffusers.DDIMScheduler"
    assert "overrides" not in scheduler_of(module).values
