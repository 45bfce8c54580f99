"""The statements that bring a module about, and values as Python literals."""

from __future__ import annotations

import ast
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.description import JSON
from diffopt.ir.dialect import components, loops
from diffopt.ir.emit_statements import RUNTIME, Statement, call_arguments, guidance_of, literal, statements
from diffopt.passes.pipeline import Trace, applied

VALUES: st.SearchStrategy[JSON] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=8,
)


def _lines(module: ModuleOp, trace: str) -> list[str]:
    found = statements(applied(Trace.parse(trace), module))
    return [statement.line(pipe="pipe", engines="engines") for statement in found]


@given(VALUES)
@example("\x7f😀")
@example("\ud800")
@example("{pipe}{engines}{{pipe}")
@example([math.inf, -math.inf, 5e-324, -0.0])
def test_a_literal_evaluates_to_its_value(value: JSON) -> None:
    text = literal(value)
    assert len(text.splitlines()) == 1
    assert repr(ast.literal_eval(text)) == repr(value)


def test_a_literal_nan_is_a_nan() -> None:
    assert literal(math.nan) == "float('nan')"


@given(st.text(st.sampled_from("{}pipengs\\\"'"), max_size=12))
@example("{pipe}")
@example("\\{engines}")
def test_a_placeholder_in_a_string_is_text(text: str) -> None:
    line = Statement("", (), f"f({{pipe}}, {literal(text)}, {{engines}})").line(pipe='a["b"]', engines='c("d")')
    call = ast.parse(line, mode="eval").body
    assert isinstance(call, ast.Call)
    assert [ast.unparse(call.args[0]), ast.unparse(call.args[2])] == ["a['b']", "c('d')"]
    assert ast.literal_eval(call.args[1]) == text


def test_a_module_as_lifted_needs_no_statement(standard_module: ModuleOp) -> None:
    assert statements(standard_module) == ()


@pytest.mark.parametrize(
    ("trace", "lines"),
    [
        (
            "reduce-steps{steps=10 solver=deis}",
            [
                "pipe.scheduler = DEISMultistepScheduler.from_config("
                + 'pipe.scheduler.config, solver_order=2, timestep_spacing="trailing")'
            ],
        ),
        ("reduce-steps{steps=10 solver=own}", []),
        ("guidance-window{stop=0.6}", ['follow_step_plan(pipe, component="unet", steps=50, guided=range(0, 30))']),
        ("guidance-window{stop=0}", []),
        (
            "cache-features{interval=3}",
            ['follow_step_plan(pipe, component="unet", steps=50, full=range(0, 49, 3), branch=0)'],
        ),
        ("quantize", ['quantize(pipe, "unet", scheme="int8-weights")']),
        ("compile", ['compile_component(pipe, "unet", mode="default")']),
        (
            "export{scope=denoiser}",
            ['export(pipe, "unet", backend="openvino", precision="f32", engines=engines, height=64, width=64)'],
        ),
        (
            "export{scope=pipeline},reduce-steps{steps=4 solver=own}",
            [
                'export_pipeline(pipe, backend="openvino", precision="f32", engines=engines, '
                + "steps=4, guidance=2.0, height=64, width=64)"
            ],
        ),
    ],
)
def test_a_pass_becomes_these_lines(standard_module: ModuleOp, trace: str, lines: list[str]) -> None:
    assert _lines(standard_module, trace) == lines


def test_what_changes_in_place_stands_before_the_plan_and_the_plan_before_engines(standard_module: ModuleOp) -> None:
    lines = _lines(standard_module, "quantize,export,guidance-window,cache-features")
    assert [line.split("(")[0] for line in lines] == ["quantize", "follow_step_plan", "export", "export", "export"]


def test_each_statement_names_its_pass_and_imports(standard_module: ModuleOp) -> None:
    found = statements(applied(Trace.parse("reduce-steps,guidance-window,cache-features,quantize"), standard_module))
    assert [(s.origin, s.imports) for s in found] == [
        ("reduce-steps", (("diffusers", "DPMSolverMultistepScheduler"),)),
        ("quantize", ((RUNTIME, "quantize"),)),
        ("guidance-window, cache-features", ((RUNTIME, "follow_step_plan"),)),
    ]


def test_full_steps_that_are_no_range_are_a_list(standard_module: ModuleOp) -> None:
    module = standard_module.clone()
    for predict in loops(module)[0].predicts:
        predict.set_full_steps([0, 1, 4, 9], 0)
    assert "full=[0, 1, 4, 9]" in statements(module)[0].code
    for predict in loops(module)[0].predicts:
        predict.set_full_steps([0], 0)
    assert "full=range(0, 1)" in statements(module)[0].code


def test_the_call_is_the_one_described(standard_module: ModuleOp) -> None:
    module = standard_module.clone()
    components(module)["pipeline"].set_value("negative_prompt", "blurry")
    assert call_arguments(module) == {
        "num_inference_steps": 50,
        "guidance_scale": 2.0,
        "height": 64,
        "width": 64,
        "negative_prompt": "blurry",
    }


def test_no_guidance_is_a_scale_of_one(standard_module: ModuleOp) -> None:
    assert guidance_of(applied(Trace.parse("guidance-window{stop=0}"), standard_module)) == 1.0
