"""Order, loops and constants as the rules see them."""

from __future__ import annotations

import libcst as cst
import pytest

from diffopt.doctor.facts import UNKNOWN, Facts

HEAD = 'from diffusers import StableDiffusionPipeline\npipe = StableDiffusionPipeline.from_pretrained("model")\n'


def facts_of(code: str) -> Facts:
    """Return the facts of a script."""
    return Facts(cst.parse_module(HEAD + code))


def order(code: str) -> bool:
    """Say whether `pipe.first()` is certainly run before `pipe.second()`."""
    facts = facts_of(code)
    calls = {use.path[-1]: use.call for use in facts.uses}
    return facts.before(calls["first"], calls["second"])


@pytest.mark.parametrize(
    ("code", "certain"),
    [
        ("pipe.first()\npipe.second()\n", True),
        ("pipe.second()\npipe.first()\n", False),
        ("if pipe:\n    pipe.first()\npipe.second()\n", False),
        ("pipe.first()\nif pipe:\n    pipe.second()\n", True),
        ("if pipe:\n    pipe.first()\nelse:\n    pipe.second()\n", False),
        ("with open('x'):\n    pipe.first()\npipe.second()\n", True),
        ("for _ in ():\n    pipe.first()\npipe.second()\n", False),
        ("try:\n    pipe.first()\nexcept ValueError:\n    pipe.second()\n", False),
        ("pipe.first()\ndef later():\n    pipe.second()\n", True),
        ("def earlier():\n    pipe.first()\npipe.second()\n", False),
    ],
)
def test_says_before_only_where_it_is_certain(code: str, certain: bool) -> None:
    assert order(code) is certain


def test_a_constructor_runs_before_the_methods_of_its_object() -> None:
    code = (
        "class Service:\n"
        "    def __init__(self):\n"
        '        self.pipe = StableDiffusionPipeline.from_pretrained("model")\n'
        "        self.pipe.first()\n"
        "    def run(self):\n"
        "        self.pipe.second()\n"
    )
    assert order(code)


def test_a_pipeline_that_may_be_one_of_two_is_none() -> None:
    facts = facts_of(
        'if input():\n    pipe = StableDiffusionPipeline.from_pretrained("other")\npipe.enable_model_cpu_offload()\n'
    )
    assert facts.uses == ()


def test_what_the_command_line_may_replace_is_not_known() -> None:
    code = (
        "import argparse\n"
        "parser = argparse.ArgumentParser()\n"
        'parser.add_argument("--steps", type=int, default=50)\n'
        "steps = parser.parse_args().steps\n"
        "number = 50\n"
        "pipe('a', num_inference_steps=steps)\n"
        "pipe('a', num_inference_steps=number)\n"
    )
    facts = facts_of(code)
    found = [facts.value(facts.argument(call, "num_inference_steps")) for call, _ in facts.calls]
    assert found == [UNKNOWN, 50]


def test_a_loop_that_can_be_left_repeats_nothing_for_certain() -> None:
    facts = facts_of("for n in range(3):\n    pipe.first()\n    if n:\n        break\n")
    (call,) = (use.call for use in facts.uses)
    loop = facts.loop(call)
    assert loop is not None
    assert not facts.repeats(call, loop)


def test_a_pipeline_that_is_handed_on_may_be_used_anywhere() -> None:
    assert facts_of("pipe('a')\n").stays(facts_of("pipe('a')\n").sites[0]) is True
    facts = facts_of("save(pipe)\n")
    assert not facts.stays(facts.sites[0])
