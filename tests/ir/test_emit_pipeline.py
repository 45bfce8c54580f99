"""The emitted file: what it says, and that nothing in a module can become code in it."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.dialects.builtin import ModuleOp, StringAttr

from diffopt.ir.description import build_module
from diffopt.ir.dialect import components, loops, scheduler_of
from diffopt.ir.emit_pipeline import emit, emit_pipeline
from diffopt.ir.emit_statements import RUNTIME
from diffopt.ir.errors import DiffoptError
from diffopt.ir.identity import parse_module, print_module
from diffopt.ir.source_directory import describe_directory
from diffopt.ir.source_script import describe_text
from diffopt.passes.pipeline import Trace, applied

TRACES = {
    "baseline": "",
    "steps_and_window": "reduce-steps{steps=12},guidance-window{stop=0.6},export{backend=openvino}",
    "quantized_cache": "cache-features,quantize,compile",
    "whole_pipeline": "reduce-steps{steps=3 solver=deis},export{scope=pipeline precision=bf16}",
}

PLAIN_NODES = (
    *(ast.Module, ast.Expr, ast.Constant, ast.Import, ast.ImportFrom, ast.alias, ast.Assign, ast.Name, ast.Call),
    *(ast.Attribute, ast.BinOp, ast.Div, ast.FunctionDef, ast.arguments, ast.arg, ast.Return, ast.keyword),
    *(ast.UnaryOp, ast.USub, ast.List, ast.Dict, ast.Load, ast.Store),
)

CALLS = re.compile(
    r"Path|range|float|pipe\.to|[A-Za-z]\w*\.from_pretrained|[A-Za-z]\w*Scheduler\.from_config"
    r"|call_defaults|follow_step_plan|quantize|export|export_pipeline|compile_component"
)


def _check_plain(code: str) -> ast.Module:
    """Check that a file has the shape of an emitted pipeline: expected imports, nodes and calls, no others."""
    tree = ast.parse(code)
    assert [type(node) for node in tree.body if not isinstance(node, ast.Import | ast.ImportFrom)] == [
        ast.Expr,
        ast.Assign,
        ast.Assign,
        ast.FunctionDef,
    ]
    for node in ast.walk(tree):
        assert isinstance(node, PLAIN_NODES), ast.dump(node)
        if isinstance(node, ast.Import):
            assert [alias.name for alias in node.names] == ["torch"]
        if isinstance(node, ast.ImportFrom):
            assert node.module in ("pathlib", RUNTIME) or str(node.module).split(".")[0] == "diffusers"
        if isinstance(node, ast.Call):
            assert CALLS.fullmatch(ast.unparse(node.func)), ast.unparse(node)
            for given_value in (*node.args, *(keyword.value for keyword in node.keywords)):
                _check_plain_value(given_value)
    compile(code, "pipeline.py", "exec")
    return tree


def _check_plain_value(value: ast.expr) -> None:
    text = ast.unparse(value)
    if text in ("pipe", "model", "device", "engines", "__file__", "pipe.scheduler.config"):
        return
    if re.fullmatch(r"torch\.\w+|range\([\d, ]+\)", text):
        return
    ast.literal_eval(value)


@pytest.mark.parametrize("name", TRACES)
def test_the_file_is_the_golden_one(standard_module: ModuleOp, golden: Callable[[str, str], None], name: str) -> None:
    module = standard_module.clone()
    components(module)["pipeline"].set_value("model", "models/shapes")
    code = emit_pipeline(applied(Trace.parse(TRACES[name]), module))
    _check_plain(code)
    golden(f"emit_pipeline/{name}.txt", code)


def test_no_pass_gives_the_plain_pipeline(standard_module: ModuleOp) -> None:
    calls = [ast.unparse(n) for n in ast.walk(ast.parse(emit_pipeline(standard_module))) if isinstance(n, ast.Call)]
    assert sorted(calls) == [
        "Path(__file__)",
        "StableDiffusionPipeline.from_pretrained(model, dtype=torch.float32)",
        "call_defaults(pipe, num_inference_steps=50, guidance_scale=2.0, height=64, width=64)",
        "pipe.to(device)",
    ]


def test_emitting_is_a_function_of_the_module(standard_module: ModuleOp) -> None:
    assert emit_pipeline(standard_module) == emit_pipeline(standard_module.clone())


def test_says_which_packages_it_needs(standard_module: ModuleOp) -> None:
    assert emit(standard_module).requirements == ("torch", "diffusers", "transformers")
    exported = applied(Trace.parse("export{backend=openvino}"), standard_module)
    assert emit(exported).requirements == ("torch", "diffusers", "transformers", "openvino")


@pytest.mark.parametrize("trace", [*TRACES.values(), "export{scope=denoiser}", "guidance-window,cache-features"])
def test_the_runtime_takes_every_call_as_it_is_emitted(standard_module: ModuleOp, trace: str) -> None:
    import diffopt.backends.runtime

    tree = ast.parse(emit_pipeline(applied(Trace.parse(trace), standard_module)))
    named = [n for n in tree.body if isinstance(n, ast.ImportFrom) and n.module == RUNTIME]
    functions = {alias.name: getattr(diffopt.backends.runtime, alias.name) for node in named for alias in node.names}
    called = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) in functions]
    assert called
    for call in called:
        given = {keyword.arg: None for keyword in call.keywords if keyword.arg}
        inspect.signature(functions[ast.unparse(call.func)]).bind(*call.args, **given)


def test_a_module_that_cannot_be_emitted_is_one_line_with_its_rule(standard_module: ModuleOp) -> None:
    module = standard_module.clone()
    components(module)["pipeline"].set_value("dtype", "float8")
    with pytest.raises(DiffoptError) as caught:
        emit(module)
    assert str(caught.value) == "@pipeline: dtype must be one of float32, float16, bfloat16 [call-is-complete]"


HOSTILE = st.one_of(
    st.sampled_from(
        [
            '"); import os #',
            '"""\nimport os\n"""',
            "'''\nimport os",
            "x\nimport os",
            "x\r\fimport os",
            "\\",
            '\\"',
            "{pipe}",
            "{engines}",
            "{model}",
            "a.b",
            "os.system",
            "__import__('os')",
            "lambda",
            "float32\nimport os",
            "é😀\x7f\ud800",
            "",
        ]
    ),
    st.text(max_size=6),
)


def _infect(module: ModuleOp, place: str, text: str) -> None:
    named = components(module)
    match place:
        case "model" | "dtype" | "negative_prompt" | "height":
            named["pipeline"].set_value(place, text)
        case "component":
            named["tokenizer"].properties["sym_name"] = StringAttr(text)
        case "class":
            named["pipeline"].properties["class_name"] = StringAttr(f"diffusers.{text}")
        case "library":
            named["pipeline"].properties["class_name"] = StringAttr(f"{text}.StableDiffusionPipeline")
        case "scheduler":
            scheduler_of(module).properties["class_name"] = StringAttr(f"diffusers.{text}Scheduler")
        case "override":
            scheduler_of(module).set_value("overrides", {text: text})
        case "transform":
            named["unet"].add_transform(text, {}, "")
        case "key":
            named["unet"].add_transform("quantize", {text: 1}, "")
        case "value":
            named["unet"].add_transform("quantize", {"scheme": [text, {text: text}]}, "")
        case "origin":
            named["unet"].add_transform("quantize", {}, text)
        case "loop":
            loops(module)[0].attributes["origin"] = StringAttr(text)


@pytest.fixture(scope="module")
def healthy_text(standard_module: ModuleOp) -> str:
    return print_module(applied(Trace.parse("reduce-steps,guidance-window,export"), standard_module))


PLACES = (
    *("model", "dtype", "negative_prompt", "height", "component", "class", "library", "scheduler", "override"),
    *("transform", "key", "value", "origin", "loop"),
)


@pytest.mark.parametrize("place", PLACES)
@settings(max_examples=40)
@given(text=HOSTILE)
def test_no_string_in_a_module_becomes_code(healthy_text: str, place: str, text: str) -> None:
    module = parse_module(healthy_text)
    _infect(module, place, text)
    try:
        code = emit_pipeline(module)
    except DiffoptError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017
        return
    tree = _check_plain_but_for_names(code)
    model = next(n.value for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "MODEL")
    assert ast.literal_eval(model) == components(module)["pipeline"].values["model"]


def _check_plain_but_for_names(code: str) -> ast.Module:
    """A transform or class may have any name; everything else is as in every emitted file."""
    names = {alias.name for n in ast.walk(ast.parse(code)) if isinstance(n, ast.ImportFrom) for alias in n.names}
    for name in sorted(names):
        assert re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII)
    odd = names - {"Path", "StableDiffusionPipeline", "DPMSolverMultistepScheduler"}
    for name in odd:
        if not CALLS.fullmatch(name):
            code = re.sub(rf"\b{name}\(", "quantize(", code)
            code = re.sub(rf"\b{name}(\.from_config)", r"XScheduler\1", code)
    return _check_plain(code)


@pytest.mark.slow
def test_the_emitted_baseline_is_the_users_own_pipeline(tiny_directory: Path) -> None:
    import torch
    from diffusers import StableDiffusionPipeline

    namespace: dict[str, object] = {"__file__": "pipeline.py"}
    code = emit_pipeline(build_module(describe_directory(tiny_directory, steps=2, guidance=3.0)))
    exec(compile(code, "pipeline.py", "exec"), namespace)  # noqa: S102
    load = namespace["load"]
    assert callable(load)
    emitted, plain = load(), StableDiffusionPipeline.from_pretrained(tiny_directory)
    assert isinstance(emitted, StableDiffusionPipeline)
    images = []
    for pipe, call in ((emitted, {}), (plain, {"num_inference_steps": 2, "guidance_scale": 3.0})):
        pipe.set_progress_bar_config(disable=True)
        images.append(pipe("a red circle", generator=torch.manual_seed(0), output_type="np", **call).images[0])
    assert images[0].shape == (48, 64, 3)
    assert (images[0] == images[1]).all()


@pytest.mark.parametrize("trace", ["", "export{scope=pipeline}"])
def test_an_empty_negative_prompt_that_a_script_gives_is_given_on(trace: str) -> None:
    # XL takes it for a prompt, and none for zeros.
    script = Path(__file__).parent / "scripts" / "plain.py.txt"
    text = script.read_text().replace('pipe("a red circle",', 'pipe("a red circle", negative_prompt="",')
    plain, given = (build_module(describe_text(each, script)) for each in (script.read_text(), text))
    assert "negative_prompt" not in emit_pipeline(applied(Trace.parse(trace), plain))
    emitted = emit_pipeline(applied(Trace.parse(trace), given))
    assert emitted.count("negative_prompt=''") + emitted.count('negative_prompt=""') == (2 if trace else 1)
