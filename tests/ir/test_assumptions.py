"""What the lifter takes to be true without proof is said, kept beside the module, and no part of its identity."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffopt.cli import main
from diffopt.ir.description import PipelineDescription, assumptions_of, build_module
from diffopt.ir.identity import module_hash, parse_module, print_module
from diffopt.ir.source_script import describe_text

BOUND = "from diffusers import StableDiffusionPipeline\n"
FRAGMENT = "pipe = StableDiffusionPipeline.from_pretrained('a/b')\npipe('x', height={height}, width=64)\n"
GENERIC = """\
from diffusers import DiffusionPipeline
pipe = DiffusionPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0")
pipe("x", height=64, width=64)
"""


def assumed(text: str) -> list[str]:
    return [str(item) for item in describe_text(text, "app.py").assumptions]


def test_a_name_that_nothing_binds_is_an_assumption() -> None:
    said = (
        "app.py:1: assumed: `StableDiffusionPipeline`, which nothing here binds, is diffusers.StableDiffusionPipeline"
    )
    assert assumed(FRAGMENT.format(height=64)) == [f"{said} itself"]


def test_a_class_known_from_the_examples_of_diffusers_is_an_assumption() -> None:
    (said,) = assumed(GENERIC)
    assert said.startswith("app.py:2: assumed: stabilityai/stable-diffusion-xl-base-1.0 is a StableDiffusionXLPipeline")


@pytest.mark.parametrize("height", ["image.height", "torch.cuda.device_count()", "round_up(image)"])
def test_a_size_that_follows_data_is_an_assumption_or_unknown(height: str) -> None:
    described = describe_text("import torch\n" + BOUND + FRAGMENT.format(height=height), "app.py")
    assert [a.name for a in described.assumptions] + [u.name for u in described.unknowns] == ["height"]


def test_a_script_that_says_all_needs_no_assumption() -> None:
    assert assumed(BOUND + FRAGMENT.format(height=64)) == []


def test_assumptions_are_carried_and_are_no_part_of_the_identity() -> None:
    def described(text: str) -> PipelineDescription:
        return describe_text(text, "app.py")

    with_one = build_module(described(FRAGMENT.format(height=64)))
    again = parse_module(print_module(with_one))
    assert assumptions_of(again) == described(FRAGMENT.format(height=64)).assumptions
    assert module_hash(again) == module_hash(build_module(described(BOUND + FRAGMENT.format(height=64))))


@pytest.mark.parametrize("command", [["lift"], ["opt", "--passes", "reduce-steps{steps=6}"], ["emit"]])
def test_the_command_line_says_them(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "app.py"
    script.write_text(FRAGMENT.format(height=64), encoding="utf-8")
    assert main([command[0], str(script), *command[1:]]) == 0
    assert capsys.readouterr().err.startswith(f"{script}:1: assumed: `StableDiffusionPipeline`")
