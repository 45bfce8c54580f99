"""demo:shapes-edges: the same prompt has the same picture, and images keep to its edges."""

from __future__ import annotations

import numpy as np
import pytest

from diffopt.backends.canny import canny
from diffopt.bench.models import builtin
from diffopt.bench.models.shapes_edges import SHAPES_EDGES
from diffopt.bench.models.shapes_edges.agreement import agreement


def test_the_picture_of_a_prompt_shows_it_and_is_always_the_same() -> None:
    prompts = SHAPES_EDGES.prompts("heldout", 6)
    pictures = SHAPES_EDGES.pictures(prompts)
    assert SHAPES_EDGES.scorer().correct(pictures.astype(np.float32) / 255, prompts).all()
    assert np.array_equal(SHAPES_EDGES.pictures(prompts[3:]), pictures[3:])


def test_edges_agree_with_themselves_and_not_with_those_of_others() -> None:
    edges = canny(SHAPES_EDGES.pictures(SHAPES_EDGES.prompts("heldout", 4)))
    assert (agreement(edges, edges) == 1).all()
    assert (agreement(edges, edges[[1, 2, 3, 0]]) < 0.6).all()
    moved = np.roll(edges, 3, axis=2)
    assert (agreement(edges, moved) < 0.6).all()


@pytest.mark.slow
@pytest.mark.skipif(builtin("demo:shapes-edges") is None, reason="it has no weights")
def test_images_without_a_prompt_keep_to_the_edges_that_they_are_given() -> None:
    import torch
    from diffusers import StableDiffusionControlNetPipeline

    pipe = StableDiffusionControlNetPipeline.from_pretrained(SHAPES_EDGES.directory, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    prompts = SHAPES_EDGES.prompts("search", 12)
    wanted = canny(SHAPES_EDGES.pictures(prompts))

    def kept(scale: float) -> float:
        seeds = [torch.Generator().manual_seed(seed) for seed in range(len(prompts))]
        given = {**SHAPES_EDGES.inputs(prompts), "prompt": [""] * len(prompts), "controlnet_conditioning_scale": scale}
        images = pipe(**given, num_inference_steps=10, guidance_scale=1.0, generator=seeds, output_type="np").images
        return float(agreement(canny(np.rint(images * 255).astype(np.uint8)), wanted).mean())

    assert kept(1.0) > kept(0.0) + 0.1
