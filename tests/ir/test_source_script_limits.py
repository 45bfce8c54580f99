"""Lifting scripts: what is refused of what is given, and what is said of what is not known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffopt.ir.description import build_chain, build_module
from diffopt.ir.errors import DiffoptError
from diffopt.ir.identity import print_module
from diffopt.ir.pipeline_classes import pipeline_class
from diffopt.ir.source_directory import describe_directory
from diffopt.ir.source_script import describe_project, describe_script, describe_text

HEAD = """
from diffusers import StableDiffusionPipeline
pipe = StableDiffusionPipeline.from_pretrained("someone/a-model")
"""


@pytest.mark.parametrize(
    ("setting", "message", "hint"),
    [
        ({"height": "513"}, "height=513: StableDiffusionPipeline takes multiples of 8", "512"),
        ({"scheduler": "DDIMSchedular"}, "the installed diffusers has no such class", "DDIMScheduler"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(setting: dict[str, str], message: str, hint: str) -> None:
    with pytest.raises(DiffoptError, match=message) as refusal:
        describe_text(HEAD + 'pipe("x")', "app.py", settings=setting)
    assert hint in (refusal.value.hint or "")


def test_a_class_that_only_warns_of_a_size_takes_it() -> None:
    flux = pipeline_class("FluxPipeline")
    assert flux is not None
    assert flux.multiple == 0


def notebook(tmp_path: Path, *cells: str) -> Path:
    made = [{"cell_type": "code", "metadata": {}, "outputs": [], "source": cell} for cell in cells]
    file = tmp_path / "demo.ipynb"
    file.write_text(json.dumps({"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return file


def test_pipelines_on_the_same_line_of_two_cells_can_be_told_apart(tmp_path: Path) -> None:
    cell = "from diffusers import StableDiffusionPipeline\npipe = StableDiffusionPipeline.from_pretrained('a/{0}')\n"
    call = "pipe('x', num_inference_steps={0})\n"
    file = notebook(tmp_path, *((cell + call).format(n) for n in (11, 22)))
    found = describe_project(file)
    assert [d.steps for d in found] == [11, 22]
    build_chain(found)
    assert describe_script(file, settings={"pipeline": "cell2:2"}).steps == 22


def test_places_that_differ_name_their_cells(tmp_path: Path) -> None:
    file = notebook(tmp_path, HEAD, "pipe('x', num_inference_steps=3)", "pipe('x', num_inference_steps=4)")
    assert describe_script(file).unknowns[0].reason == "it differs between cell 2 line 1 and cell 3 line 1"


def test_setattr_sets_a_field() -> None:
    body = """
class C:
    g = 7.5
c = C()
setattr(c, {0}, 2.0)
pipe("x", guidance_scale=c.g)
"""
    assert describe_text(HEAD + body.format('"g"'), "app.py").guidance == 2.0
    assert describe_text(HEAD + body.format('"h"'), "app.py").guidance == 7.5
    unknown = describe_text(HEAD + body.format("input()"), "app.py").unknowns
    assert [item.name for item in unknown] == ["guidance"]


def test_a_latent_that_is_asked_for_is_not_decoded() -> None:
    module = build_module(describe_text(HEAD + 'pipe("x", output_type="latent")', "app.py"))
    assert "diffusion.decode" not in print_module(module)


def test_a_custom_pipeline_leaves_the_class_open_and_its_numbers_are_arguments() -> None:
    text = """
from diffusers import StableDiffusionPipeline
pipe = StableDiffusionPipeline.from_pretrained("someone/a-model", custom_pipeline="lpw_stable_diffusion")
pipe("x", max_embeddings_multiples=3)
"""
    described = describe_text(text, "app.py")
    assert [item.name for item in described.unknowns] == ["pipeline_class"]
    assert described.arguments == {"max_embeddings_multiples": 3}


def test_the_folder_of_a_project_asks_for_its_script(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(HEAD)
    with pytest.raises(DiffoptError) as refusal:
        describe_directory(tmp_path)
    assert refusal.value.hint == "name the project's main script"
