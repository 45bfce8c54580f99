"""The model families of the suite, and the built-in model that stands for each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from diffopt.bench.models import builtin

SAMPLERS = {
    "ddim": "DDIMScheduler",
    "dpm-solver": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
}
"""The samplers that tasks name, and their classes in diffusers."""

SAMPLER_TITLES = {"ddim": "DDIM", "dpm-solver": "DPM-Solver++", "unipc": "UniPC"}


@dataclass(frozen=True)
class Family:
    """A family of models.

    Args:
        title: what the paper's tasks call it.
        original: the hub id of what it stands for.
        model: the built-in model that tasks ask for instead.
        layout: a built-in model of the same architecture, by which code for it can be made before `model` is trained.
        own: class of its scheduler as it is saved.
        guidance: of every call.
    """

    key: str
    title: str
    original: str
    pipeline_class: str
    model: str
    layout: str
    own: str
    kind: Literal["unet", "transformer"]
    guidance: float = 2.0
    size: int = 64

    def directory(self) -> Path | None:
        """Return the model directory of the built-in model, or None where it has no weights."""
        found = builtin(self.model)
        return None if found is None else found.directory

    def layout_directory(self) -> Path | None:
        """Return a model directory that tells the architecture, or None."""
        found = builtin(self.model) or builtin(self.layout)
        return None if found is None else found.directory

    def unavailable(self) -> str:
        """Say why nothing of this family can be measured; empty where it can."""
        return "" if self.directory() is not None else f"{self.model} has no weights"


FAMILIES = {
    family.key: family
    for family in (
        Family(
            "sd15", "Stable Diffusion 1.5", "stable-diffusion-v1-5/stable-diffusion-v1-5",
            "StableDiffusionPipeline", "demo:shapes", "", "DDIMScheduler", "unet",
        ),
        Family(
            "sd21", "Stable Diffusion 2.1", "stabilityai/stable-diffusion-2-1",
            "StableDiffusionPipeline", "demo:shapes-v", "demo:shapes", "DDIMScheduler", "unet",
        ),
        Family(
            "sdxl", "Stable Diffusion XL", "stabilityai/stable-diffusion-xl-base-1.0",
            "StableDiffusionXLPipeline", "demo:shapes-xl", "", "EulerDiscreteScheduler", "unet",
        ),
        Family(
            "pixart-alpha", "PixArt-alpha", "PixArt-alpha/PixArt-XL-2-512x512",
            "PixArtAlphaPipeline", "demo:shapes-pixart", "", "DPMSolverMultistepScheduler", "transformer",
        ),
        Family(
            "pixart-sigma", "PixArt-Sigma", "PixArt-alpha/PixArt-Sigma-XL-2-512-MS",
            "PixArtSigmaPipeline", "demo:shapes-pixart", "", "DPMSolverMultistepScheduler", "transformer",
        ),
        Family(
            "controlnet", "ControlNet (Canny)", "lllyasviel/sd-controlnet-canny",
            "StableDiffusionControlNetPipeline", "demo:shapes-edges", "", "DDIMScheduler", "unet",
        ),
        Family(
            "dit", "DiT", "facebook/DiT-XL-2-256",
            "DiTPipeline", "demo:shapes-dit", "", "DDIMScheduler", "transformer",
        ),
    )
}  # fmt: skip
"""By key, in the order of the paper's chart."""


def clips(family: Family, sampler: str) -> bool:
    """Tell whether a sampler made of the family's own configuration would clip samples: that of DDIM's kin says not to."""
    return sampler == "ddim" and family.own != SAMPLERS["ddim"]
