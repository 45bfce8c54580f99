"""From a description to a module, and what a description may not hold."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffopt.ir.description import (
    ComponentDescription,
    PipelineDescription,
    Span,
    Unknown,
    build_module,
    spans_of,
)
from diffopt.ir.dialect import components, loops, steps_of
from diffopt.ir.errors import DiffoptError
from diffopt.ir.identity import parse_module, print_module
from diffopt.ir.verify import Stage, verify

PLAIN = PipelineDescription(
    name="plain",
    pipeline_class="diffusers.StableDiffusionPipeline",
    model="some/model",
    components=(
        ComponentDescription("scheduler", "diffusers.DDIMScheduler", {"beta_start": 0.1, "_private": 1, "unset": None}),
        ComponentDescription("text_encoder", "transformers.CLIPTextModel", {}),
        ComponentDescription("unet", "diffusers.UNet2DConditionModel", {"sample_size": 8}),
        ComponentDescription("vae", "diffusers.AutoencoderKL", {}),
    ),
    steps=50,
    guidance=7.5,
    height=64,
    width=64,
)


def test_a_description_becomes_a_module_that_can_be_emitted() -> None:
    module = build_module(PLAIN)
    module.verify()
    assert verify(module, Stage.EMITTABLE) == ()
    assert steps_of(module) == 50
    assert components(module)["scheduler"].values == {"steps": 50, "config": {"beta_start": 0.1}}


def test_guidance_calls_the_denoiser_twice_and_none_calls_it_once() -> None:
    (guided,) = loops(build_module(PLAIN))
    (plain,) = loops(build_module(replace(PLAIN, guidance=1.0)))
    assert len(guided.predicts) == 2
    assert guided.guide is not None
    assert len(plain.predicts) == 1
    assert plain.guide is None


def test_a_transformer_is_a_denoiser_too() -> None:
    parts = tuple(replace(part, name="transformer") if part.name == "unet" else part for part in PLAIN.components)
    (loop,) = loops(build_module(replace(PLAIN, components=parts)))
    assert loop.predicts[0].component.root_reference.data == "transformer"


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("unet", "has no denoiser"),
        ("vae", "has no VAE"),
        ("scheduler", "no scheduler"),
        ("text_encoder", "no text enc"),
    ],
)
def test_a_pipeline_without_a_part_is_refused(missing: str, said: str) -> None:
    parts = tuple(part for part in PLAIN.components if part.name != missing)
    with pytest.raises(DiffoptError, match=said):
        build_module(replace(PLAIN, components=parts))


def test_an_unknown_value_says_where_it_stands_and_how_to_give_it() -> None:
    unknown = Unknown("steps", Span("mine.py", 12, 4, 12, 9), "read from the command line")
    with pytest.raises(DiffoptError) as caught:
        build_module(replace(PLAIN, unknowns=(unknown,)))
    assert str(caught.value) == (
        "mine.py:12: `steps` cannot be known without running the script (read from the command line); "
        "give it with --set steps=VALUE"
    )


@pytest.mark.parametrize("name", ['unet"; import os', "", "a b", "1a", "ünet", "pipeline", "generate", "vae"])
def test_a_component_name_that_cannot_stand_in_code_is_refused(name: str) -> None:
    part = ComponentDescription(name, "diffusers.UNet2DConditionModel", {})
    with pytest.raises(DiffoptError, match="cannot be the name of a component"):
        build_module(replace(PLAIN, components=(*PLAIN.components, part)))


@pytest.mark.parametrize("class_name", ["diffusers.A; import os", "", "diffusers.", "diffusers.Ü", 'x"y'])
def test_a_class_name_that_cannot_stand_in_code_is_refused(class_name: str) -> None:
    with pytest.raises(DiffoptError, match="is no class name"):
        build_module(replace(PLAIN, pipeline_class=class_name))
    with pytest.raises(DiffoptError, match="is no class name"):
        build_module(replace(PLAIN, components=(*PLAIN.components, ComponentDescription("extra", class_name, {}))))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"steps": 0}, "0 steps are none"),
        ({"steps": -3}, "-3 steps are none"),
        ({"guidance": float("inf")}, "guidance=inf is out of range"),
        ({"guidance": float("nan")}, "guidance=nan is out of range"),
        ({"height": -64}, "height=-64 is out of range"),
    ],
)
def test_a_number_out_of_range_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(DiffoptError, match=said):
        build_module(replace(PLAIN, **change))


@pytest.mark.parametrize("name", ["", "7 days", "é", '"', "a.b-c"])
def test_any_name_of_a_pipeline_reads_back(name: str) -> None:
    text = print_module(build_module(replace(PLAIN, name=name)))
    assert print_module(parse_module(text)) == text


@given(st.text(), st.integers(1), st.integers(0), st.integers(1), st.integers(0))
def test_a_span_reads_back(file: str, line: int, column: int, end_line: int, end_column: int) -> None:
    span = Span(file, line, column, end_line, end_column)
    assert Span.parse(str(span)) == span


def test_a_module_carries_its_spans() -> None:
    spans = {"construct": Span("dir: with\ncolons/é.py", 3, 0, 4, 1), "call": Span("x.py", 9, 4, 9, 20)}
    module = build_module(replace(PLAIN, source="x.py", spans=spans))
    assert spans_of(module) == spans
    assert spans_of(parse_module(print_module(module))) == spans
    assert spans_of(build_module(PLAIN)) == {}
