"""Text and identity: print and parse are inverse, equal programs have equal hashes, bad text is one clear line."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.description import JSON, ComponentDescription, PipelineDescription, Span, build_module
from diffopt.ir.dialect import components, loops
from diffopt.ir.errors import DiffoptError
from diffopt.ir.identity import canonical_text, difference, module_hash, parse_module, print_module
from diffopt.ir.source_directory import describe_directory

ODD = st.sampled_from(['"', "\\", "\n", "\t", "\0", "\x7f", "é", "😀", "\ud800", "\\n", "\\22", "}", "//", "@x", "%y"])
TEXTS = st.one_of(st.text(max_size=8), st.lists(ODD, max_size=4).map("".join))
NUMBERS = st.one_of(
    st.integers(),
    st.integers(-(10**40), 10**40),
    st.floats(allow_nan=False),
    st.sampled_from([0.0, -0.0, 5e-324, -1e-7, 1e308, 1 / 3, -(2**63), 2**63, 10**30]),
)
VALUES: st.SearchStrategy[JSON] = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)
CONFIGS = st.dictionaries(TEXTS, VALUES, max_size=4)


@st.composite
def modules(draw: st.DrawFn) -> ModuleOp:
    """Any module that a lifter and passes could make, and more."""
    steps = draw(st.integers(1, 60))
    classes = {
        "scheduler": "diffusers.DDIMScheduler",
        "unet": "diffusers.UNet2DConditionModel",
        "text_encoder": "transformers.CLIPTextModel",
        "vae": "diffusers.AutoencoderKL",
    }
    module = build_module(
        PipelineDescription(
            name=draw(TEXTS),
            pipeline_class="diffusers.StableDiffusionPipeline",
            model=draw(TEXTS),
            components=tuple(ComponentDescription(name, c, draw(CONFIGS)) for name, c in classes.items()),
            steps=steps,
            guidance=draw(st.floats(0, 30)),
            height=draw(st.integers(1, 4096)),
            width=draw(st.integers(1, 4096)),
            negative_prompt=draw(TEXTS),
            source=draw(TEXTS),
            spans={"call": Span(draw(TEXTS), 1, 2, 3, 4)},
        )
    )
    for _ in range(draw(st.integers(0, 3))):
        part = draw(st.sampled_from(list(components(module).values())))
        name = draw(st.sampled_from(["quantize", "export", "compile"]))
        part.add_transform(name, draw(CONFIGS), draw(st.sampled_from(["", "quantize"])))
    if draw(st.booleans()):
        full = sorted({0, *draw(st.lists(st.integers(0, steps - 1), max_size=5))})
        for predict in loops(module)[0].predicts:
            predict.set_full_steps(full, draw(st.integers(0, 3)))
    return module


@settings(max_examples=40)
@given(modules())
def test_print_and_parse_are_inverse(module: ModuleOp) -> None:
    text = print_module(module)
    again = parse_module(text)
    assert print_module(again) == text
    assert module_hash(again) == module_hash(module)
    for name, component in components(module).items():
        assert components(again)[name].values == component.values
        assert [t.arguments for t in components(again)[name].transforms] == [t.arguments for t in component.transforms]


@settings(max_examples=20)
@given(modules())
def test_the_hash_ignores_the_order_of_keys_at_every_depth(module: ModuleOp) -> None:
    def turned(value: JSON) -> JSON:
        if isinstance(value, dict):
            return {key: turned(value[key]) for key in reversed(list(value))}
        return [turned(v) for v in value] if isinstance(value, list) else value

    other = module.clone()
    for component in components(other).values():
        for key, value in reversed(component.values.items()):
            del component.attributes[key]
            component.set_value(key, turned(value))
    assert module_hash(other) == module_hash(module)


def test_the_hash_ignores_where_things_came_from_and_what_they_are_called(shapes_directory: Path) -> None:
    description = describe_directory(shapes_directory, steps=5)
    spans = {"call": Span("mine.py", 1, 0, 2, 3)}
    one, two = build_module(description), build_module(replace(description, name="x", source="mine.py", spans=spans))
    for module, origin in ((one, "first-pass"), (two, "second-pass")):
        components(module)["unet"].add_transform("quantize", {"scheme": "int8-weights"}, origin)
    for op in two.walk():
        for result in op.results:
            result.name_hint = "renamed"
    assert print_module(one) != print_module(two)
    assert canonical_text(one) == canonical_text(two)
    assert module_hash(one) == module_hash(two)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("steps 0 to 50", "steps 0 to 49"),
        ("by 2.0", "by 2.1"),
        ("(%x_1, %t, %c)", "(%x_1, %t, %u)"),
        ("diffusers.DDIMScheduler", "diffusers.DDPMScheduler"),
        ("norm_num_groups = 8", "norm_num_groups = 4"),
        ("height = 64", "height = 32"),
    ],
)
def test_the_hash_tells_programs_apart(standard_module: ModuleOp, before: str, after: str) -> None:
    text = print_module(standard_module)
    assert before in text
    assert module_hash(parse_module(text.replace(before, after, 1))) != module_hash(standard_module)


def test_asking_for_the_identity_changes_nothing(standard_module: ModuleOp) -> None:
    before = print_module(standard_module)
    assert re.fullmatch(r"[0-9a-f]{16}", module_hash(standard_module))
    assert print_module(standard_module) == before


def test_the_difference_shows_the_lines_that_changed(standard_module: ModuleOp) -> None:
    other = standard_module.clone()
    loops(other)[0].set_bounds(0, 7)
    lines = difference(standard_module, other).splitlines()
    assert [line.strip() for line in lines if line.startswith(("+  ", "-  "))] == [
        "-    %x = diffusion.denoise @scheduler steps 0 to 50 from %x0 {",
        "+    %x = diffusion.denoise @scheduler steps 0 to 7 from %x0 {",
    ]
    assert difference(standard_module, standard_module) == ""


@pytest.fixture(scope="module")
def rich_text(standard_module: ModuleOp) -> str:
    module = standard_module.clone()
    components(module)["unet"].add_transform(
        "export", {"backend": "openvino", "é": [1, 2.5, None, {"a": True}]}, "export"
    )
    for predict in loops(module)[0].predicts:
        predict.set_full_steps([0, 2, 4], 1)
    return print_module(module)


CHARACTERS = st.one_of(st.characters(), st.sampled_from('"\\{}()[]<>@%^!#:=,-09.ei\n')).map(str)
PIECES = st.one_of(
    CHARACTERS,
    st.sampled_from(
        [
            "i99999999999",
            "9" * 5000,
            "[" * 400,
            '"',
            '"\\',
            "dense<1> : tensor<2xi32>",
            "loc(",
            "^bb0",
            "unit",
            "::",
            "-",
        ]
    ),
)


def _parsed(text: str) -> ModuleOp | DiffoptError:
    try:
        return parse_module(text, "mine.mlir")
    except DiffoptError as error:
        return error


def _parses_or_says_one_line(text: str) -> None:
    module = _parsed(text)
    if isinstance(module, DiffoptError):
        assert len(str(module).splitlines()) == 1
        assert re.match(r"mine\.mlir:\d+: (not IR text|IR does not verify): \S", str(module)), module
        assert int(module.where.rpartition(":")[2]) <= text.count("\n") + 1
        return
    again = parse_module(print_module(module))
    assert print_module(again) == print_module(module)
    assert module_hash(again) == module_hash(module)


@settings(max_examples=30)
@given(st.data())
def test_a_truncated_text_is_one_line(rich_text: str, data: st.DataObject) -> None:
    _parses_or_says_one_line(rich_text[: data.draw(st.integers(0, len(rich_text)))])


@settings(max_examples=60)
@given(st.data())
def test_a_damaged_text_is_one_line(rich_text: str, data: st.DataObject) -> None:
    text = rich_text
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(text) - 1))
        cut = data.draw(st.sampled_from([0, 1, 1, 1, 5, 20]))
        text = text[:place] + data.draw(PIECES) + text[place + cut :]
    _parses_or_says_one_line(text)


@settings(max_examples=40)
@given(st.text())
@example("")
@example("\0")
@example("builtin.module {")
@example('"')
def test_a_text_that_is_no_ir_is_one_line(text: str) -> None:
    _parses_or_says_one_line(text)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("steps 0 to 50", "steps 5 to 3", ":12: IR does not verify: a loop runs over at least one step, not 5 to 3"),
        ("diffusion.yield %n", "", ":12: IR does not verify: a denoise loop ends in diffusion.yield"),
        ("from %x0", "from %c", ":12: IR does not verify: !diffusion.embedding should be of base attribute"),
        ('"float32"', "dense<1> : tensor<2xi32>", ":2: IR does not verify: no JSON for attribute dense<1>"),
        ('"float32"', '"\\ff"', ":2: IR does not verify: no text: "),
        ('"float32"', '"float32', ":2: not IR text: a string is not closed or has an unknown escape"),
        ('"float32"', "1 : i999999999", ":2: not IR text: an integer type is too wide"),
        ("height =", '"hèight" =', ":2: IR does not verify: 'hèight' in diffusion.component: names and keys are ASCII"),
        ("func.return", "func.blub", "not IR text: Operation func.blub is not registered"),
        ("by 2.0", "by two", "not IR text: integer or float literal expected"),
    ],
)
def test_an_error_names_its_line(standard_module: ModuleOp, before: str, after: str, said: str) -> None:
    text = print_module(standard_module)
    assert before in text
    with pytest.raises(DiffoptError, match=r"^x\.mlir:") as caught:
        parse_module(text.replace(before, after, 1), "x.mlir")
    assert said in str(caught.value)


def test_a_string_left_open_takes_no_time() -> None:
    # xDSL 0.74 backtracks: each character of the line doubles the time.
    with pytest.raises(DiffoptError, match="x:2: not IR text: a string is not closed"):
        parse_module('builtin.module {\n  "' + "a" * 10_000 + "\n}", "x")
