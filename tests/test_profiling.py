from __future__ import annotations

from pathlib import Path

import pytest

from diffopt.ir.errors import DiffoptError
from diffopt.profiling import profile_lines, profile_source

SCRIPT = """
import torch
from diffusers import StableDiffusionPipeline

pipe = StableDiffusionPipeline.from_pretrained({model!r}, torch_dtype=torch.float32)

image = pipe("a cat", num_inference_steps=3, guidance_scale=2.0).images[0]
"""


@pytest.mark.slow
def test_stages_and_steps_are_timed_and_mapped_to_lines(tiny_directory: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(model=str(tiny_directory)))
    found = profile_source(str(script), runs=2)
    parts = {part.name.strip(): part for part in found.parts}
    assert parts["load"].where.endswith("script.py:5")
    assert parts["unet"].where.endswith("script.py:7")
    assert parts["unet"].detail.startswith("3 calls")
    stages = ("text_encoder", "unet", "vae", "around them")
    assert sum(parts[name].share or 0 for name in stages) == pytest.approx(1.0)
    assert len(profile_lines(found)) == len(found.parts) + 1


def test_no_call_at_all_is_refused() -> None:
    with pytest.raises(DiffoptError, match="one call at least"):
        profile_source("demo:shapes", runs=0)
