"""Where a comment suppresses a finding."""

from __future__ import annotations

import pytest

from diffopt.doctor.runner import lint

SCRIPT = """\
import torch
from diffusers import StableDiffusionPipeline

#0
pipe = StableDiffusionPipeline.from_pretrained(  #1
    "model",  #2
    #3
    torch_dtype=torch.bfloat16,  #4
    variant=None,  #5
)  #6
"""
WORKS = {0: True, 1: True, 2: False, 3: True, 4: True, 5: False, 6: True}


def found(text: str) -> list[str]:
    """Return the ids of what is found."""
    return [finding.rule for finding in lint(text, "script.py")]


@pytest.mark.parametrize(
    "comment", ["lint-ignore", "lint-ignore: DIFF001", "lint-fixme: UseFstring, TorchDtypeSpelling"]
)
@pytest.mark.parametrize("place", WORKS)
def test_a_comment_works_at_the_argument_above_it_and_at_both_ends_of_the_call(place: int, comment: str) -> None:
    text = SCRIPT.replace(f"#{place}", f"# {comment}")
    assert found(text) == ([] if WORKS[place] else ["DIFF001"])


@pytest.mark.parametrize("place", WORKS)
def test_a_comment_that_names_another_rule_suppresses_nothing(place: int) -> None:
    assert found(SCRIPT.replace(f"#{place}", "# lint-ignore: DIFF008")) == ["DIFF001"]


def test_a_comment_works_at_a_link_of_a_chain() -> None:
    text = (
        "from diffusers import StableDiffusionPipeline\n"
        'pipe = (\n    StableDiffusionPipeline.from_pretrained("model")\n    .to("cuda")  # lint-ignore: DIFF008\n)\n'
        "pipe.enable_model_cpu_offload()\n"
    )
    assert found(text) == []
    assert found(text.replace("  # lint-ignore: DIFF008", "")) == ["DIFF008"]


def test_a_misspelt_suppression_is_said_and_suppresses_nothing() -> None:
    assert sorted(found(SCRIPT.replace("#4", "# lint-ignore: DIFF0011"))) == ["DIFF001", "DIFF051"]
    assert found("x = 1  # lint-ignore: UseFstring\n") == []


def test_names_of_a_star_import_are_known() -> None:
    assert found(SCRIPT.replace("import StableDiffusionPipeline", "import *")) == ["DIFF001"]
