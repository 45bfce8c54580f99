"""A plain diffusers script, as a user would write it: build the pipeline, call it, save the image."""

from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

MODEL = Path(__file__).parent.parent / "bench" / "models" / "shapes" / "weights"
PROMPTS = [
    "a large red circle on the left and a small blue square on the right, white background",
    "a small green triangle in the center, black background",
]


def main() -> None:
    pipe = StableDiffusionPipeline.from_pretrained(MODEL, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    for index, prompt in enumerate(PROMPTS):
        generator = torch.Generator("cpu").manual_seed(index)
        image = pipe(prompt, num_inference_steps=50, guidance_scale=2.0, generator=generator).images[0]
        image.save(f"image_{index}.png")


if __name__ == "__main__":
    main()
