"""The safety checker goes on request alone, and then nothing looks at the images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from diffopt.backends.base import BackendError
from diffopt.backends.runtime import drop_safety_checker, witnesses


class _Checker(torch.nn.Module):
    """Blackens whatever it sees."""

    def forward(self, images: object, clip_input: object) -> tuple[object, list[bool]]:
        raise AssertionError("the images were looked at")


@pytest.mark.slow
def test_nothing_looks_at_the_images_any_more(tiny_directory: Path) -> None:
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(tiny_directory)
    with pytest.raises(BackendError, match="has no safety checker"):
        drop_safety_checker(pipe)
    pipe.safety_checker = _Checker()
    drop_safety_checker(pipe)
    pipe.set_progress_bar_config(disable=True)
    assert pipe("a", num_inference_steps=1, output_type="pt").nsfw_content_detected is None
    assert [(w.transform, w.count) for w in witnesses(pipe)] == [("drop_safety_checker", 1)]
