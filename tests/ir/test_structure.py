"""From a description to the structure of a call: what is encoded, and where an image's loop starts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from diffopt.ir.description import Input, PipelineDescription, Unknown, build_module
from diffopt.ir.dialect import loops
from diffopt.ir.errors import DiffoptError
from diffopt.ir.identity import print_module
from diffopt.ir.source_directory import describe_hub
from diffopt.ir.source_script import describe_text
from diffopt.ir.verify import Stage, verify


def described(class_name: str) -> PipelineDescription:
    """Describe a model that is on no disk, from its class alone."""
    return describe_hub("someone/a-model", class_name, cache_folder=Path("no-such-folder"))


def test_a_hub_id_that_is_not_on_disk_keeps_its_text_encoders() -> None:
    module = build_module(replace(described("StableDiffusionXLPipeline"), height=1024, width=1024))
    text = print_module(module)
    assert "diffusion.encode @text_encoder(%prompt)" in text
    assert "diffusion.encode @text_encoder_2(%negative)" in text
    first, second = loops(module)[0].predicts
    assert list(first.conditions) != list(second.conditions)
    assert verify(module, Stage.EMITTABLE) == ()


def test_what_a_script_sets_to_none_is_left_out() -> None:
    script = """
from diffusers import StableDiffusionXLPipeline
pipe = StableDiffusionXLPipeline.from_pretrained("someone/a-model", text_encoder=None, tokenizer=None)
pipe("a cat")
"""
    names = [part.name for part in describe_text(script, "app.py").components]
    assert "text_encoder_2" in names
    assert "text_encoder" not in names
    assert "tokenizer" not in names


@pytest.mark.parametrize(
    ("class_name", "steps", "strength", "start"),
    [
        ("FluxImg2ImgPipeline", 4, 0.9, 0),
        ("FluxImg2ImgPipeline", 28, 0.6, 11),
        ("StableDiffusion3Img2ImgPipeline", 4, 0.9, 0),
        ("StableDiffusionImg2ImgPipeline", 4, 0.9, 1),
        ("StableDiffusionXLImg2ImgPipeline", 4, 0.9, 1),
        ("StableDiffusionImg2ImgPipeline", 50, 1.0, 0),
    ],
)
def test_an_image_starts_where_the_class_rounds_it(class_name: str, steps: int, strength: float, start: int) -> None:
    given = replace(
        described(class_name), steps=steps, inputs=(Input("image", "image"),), arguments={"strength": strength}
    )
    assert loops(build_module(given))[0].bounds == (start, steps)


def test_a_strength_that_takes_no_step_is_refused() -> None:
    given = replace(described("StableDiffusionImg2ImgPipeline"), steps=4, inputs=(Input("image", "image"),))
    with pytest.raises(DiffoptError, match=r"a strength of 0\.1 takes none of 4 steps"):
        build_module(replace(given, arguments={"strength": 0.1}))


def test_all_that_is_unknown_is_said_at_once() -> None:
    unknowns = (Unknown("steps", None, "it comes late"), Unknown("model", None, "it comes later"))
    with pytest.raises(DiffoptError) as refusal:
        build_module(replace(described("FluxPipeline"), unknowns=unknowns))
    assert "`steps` cannot be known without running the script (it comes late)" in refusal.value.message
    assert "`model` (it comes later)" in refusal.value.message
    assert refusal.value.hint == "give them with --set steps=VALUE --set model=VALUE"
