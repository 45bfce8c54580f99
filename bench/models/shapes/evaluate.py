"""Stage `evaluate`: how well the 50-step baseline follows held-out prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from diffopt.bench.models.shapes import SHAPES, parts
from diffopt.bench.models.shapes.captions import parse
from diffopt.bench.models.shapes.training import log

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

PROMPTS = 1000
_BATCH = 50


def run() -> None:
    """Generate an image for each of 1,000 held-out prompts and log the share that is right."""
    from diffopt.bench.models.shapes.train_scorer import accuracy

    log("evaluate", f"scorer right on {100 * accuracy(2000, seed=11):.2f} % of 2000 held-out rendered scenes")
    prompts = SHAPES.prompts("heldout", PROMPTS)
    images = generate(parts.load_pipeline(), prompts)
    scorer = SHAPES.scorer()
    right = scorer.correct(images, prompts)
    scenes = [parse(prompt) for prompt in prompts]
    two = np.array([len(scene.items) == 2 for scene in scenes])
    log(
        "evaluate",
        f"{SHAPES.steps} steps, guidance {SHAPES.guidance}: {100 * right.mean():.1f} % of {PROMPTS} held-out prompts"
        f" right in everything; attributes {100 * scorer.attributes_correct(images, prompts).mean():.2f} %;"
        f" one object {100 * right[~two].mean():.1f} %, two {100 * right[two].mean():.1f} %",
    )


def generate(
    pipeline: StableDiffusionPipeline, prompts: Sequence[str], *, steps: int = SHAPES.steps, seed: int = 0
) -> npt.NDArray[np.float32]:
    """Return images float32 [n, 64, 64, 3] in [0, 1]; prompt i starts from the noise of seed `seed + i`."""
    import torch

    batches = []
    for start in range(0, len(prompts), _BATCH):
        batch = list(prompts[start : start + _BATCH])
        made = pipeline(
            batch,
            num_inference_steps=steps,
            guidance_scale=SHAPES.guidance,
            height=SHAPES.height,
            width=SHAPES.width,
            generator=[torch.Generator().manual_seed(seed + start + index) for index in range(len(batch))],
            output_type="np",
        )
        batches.append(np.asarray(made.images, dtype=np.float32))
    return np.concatenate(batches)
