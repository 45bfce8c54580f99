"""A live pipeline lifts as the directory does that it was loaded from."""

from __future__ import annotations

from pathlib import Path

import pytest

import diffopt
from diffopt.ir.dialect import steps_of
from diffopt.ir.errors import DiffoptError

SHAPES = Path(__file__).parents[2] / "bench" / "models" / "shapes" / "weights"


@pytest.mark.slow
def test_a_live_pipeline_lifts_with_the_call_that_is_given() -> None:
    import torch
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(SHAPES, dtype=torch.float32)
    lifted = diffopt.lift(pipe, steps=30)
    assert lifted.kind == "live"
    assert steps_of(lifted.module) == 30


def test_what_is_no_pipeline_is_refused() -> None:
    with pytest.raises(DiffoptError, match="object is no diffusers pipeline"):
        diffopt.lift(object())
