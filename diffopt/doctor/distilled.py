"""Models that are distilled to few steps or to no guidance, with the page that says how to call them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Distilled:
    """How a distilled model is meant to be called.

    Args:
        steps: most steps that its documentation advises.
        guided: it reads `guidance_scale`, and guidance spoils its images; where a model ignores it, nothing is wrong.
        page: of the documentation.
    """

    steps: int
    guided: bool
    page: str


DISTILLED: Mapping[str, Distilled] = {
    "stabilityai/sdxl-turbo": Distilled(4, True, "api/pipelines/stable_diffusion/sdxl_turbo"),
    "stabilityai/sd-turbo": Distilled(4, True, "api/pipelines/stable_diffusion/sdxl_turbo"),
    "black-forest-labs/FLUX.1-schnell": Distilled(4, False, "api/pipelines/flux"),
    "Tongyi-MAI/Z-Image-Turbo": Distilled(9, True, "api/pipelines/z_image"),
}
MANY = 2
"""A call is flagged from this many times the advised steps on."""
