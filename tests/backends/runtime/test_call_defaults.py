from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch

from diffopt.backends import BackendError
from diffopt.backends.runtime import call_defaults, witnesses


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def test_defaults_are_used_and_explicit_arguments_still_win(pipe: Any) -> None:
    plain = pipe("a red circle", num_inference_steps=2, output_type="pt", generator=generator()).images
    other = pipe("a red circle", num_inference_steps=3, output_type="pt", generator=generator()).images
    call_defaults(pipe, num_inference_steps=2, output_type="pt")
    assert torch.equal(pipe("a red circle", generator=generator()).images, plain)
    assert torch.equal(pipe("a red circle", num_inference_steps=3, generator=generator()).images, other)
    assert torch.equal(pipe(["a red circle"], None, None, 2, generator=generator()).images, plain)


def test_a_default_negative_prompt_is_meant_for_each_of_several_prompts(pipe: Any) -> None:
    settings = {"num_inference_steps": 2, "guidance_scale": 3.0, "output_type": "pt"}
    plain = pipe(["a", "b"], negative_prompt=["ugly", "ugly"], generator=generator(), **settings).images
    call_defaults(pipe, negative_prompt="ugly", **settings)
    assert torch.equal(pipe(["a", "b"], generator=generator()).images, plain)


def test_the_pipeline_stays_what_it_was(pipe: Any) -> None:
    before = type(pipe)
    call_defaults(call_defaults(pipe, guidance_scale=2.0), num_inference_steps=2)
    assert isinstance(pipe, before)
    assert type(pipe).__name__ == "StableDiffusionPipeline"
    assert type(pipe).__mro__[1] is before
    assert inspect.signature(type(pipe).__call__) == inspect.signature(before.__call__)


def test_python_reports_a_wrong_call_as_before(pipe: Any) -> None:
    call_defaults(pipe, num_inference_steps=2)
    with pytest.raises(TypeError, match="multiple values for argument 'prompt'"):
        pipe("a", prompt="b")


def test_refuses_an_argument_the_call_does_not_have(pipe: Any) -> None:
    with pytest.raises(BackendError, match="takes no argument 'strength'"):
        call_defaults(pipe, strength=0.5)


def test_a_plain_pipeline_has_no_witnesses(pipe: Any) -> None:
    assert witnesses(pipe) == []


def test_two_pipelines_share_nothing(load: Any) -> None:
    one, other = load(), load()
    call_defaults(one, num_inference_steps=1)
    assert type(other) is type(one).__mro__[1]
