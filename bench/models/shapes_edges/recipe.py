"""Train demo:shapes-edges: a ControlNet (Zhang et al., 2023) on the encoder of demo:shapes, whose own weights stay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffopt.backends.canny import canny
from diffopt.bench.models.learning.stable_diffusion import SHARED, StableDiffusionRecipe, trained_unet
from diffopt.bench.models.shapes import parts as shapes_parts
from diffopt.bench.models.shapes_edges import SHAPES_EDGES

if TYPE_CHECKING:
    import torch
    from torch import nn

    from diffopt.bench.models.learning.drawing_pool import Drawn
    from diffopt.bench.models.learning.feed import Feed
    from diffopt.bench.models.learning.recipe import Parts

_EMBEDDING = (16, 32, 32)
"""Channels on the way from the picture of edges to the latent's size, a quarter."""
_DROPOUT = 0.7
"""Seven captions in ten are dropped: a caption says nearly all that edges say, and beside it they teach little."""


@dataclass(frozen=True)
class EdgesRecipe(StableDiffusionRecipe):
    """See `Recipe`."""

    name: str = "edges"
    component: str = "controlnet"
    pool: str = "shapes"
    batch: int = 32
    rate: float = 1e-3
    seed: int = 36
    decay: float = 0.99

    def network(self) -> nn.Module:
        """See `Recipe`; its encoder is the UNet's from the start, what it adds is nothing yet."""
        from diffusers import ControlNetModel

        network: nn.Module = ControlNetModel.from_unet(
            shapes_parts.load("unet"), conditioning_embedding_out_channels=_EMBEDDING
        )
        return network

    def feed(self, drawn: Drawn, parts: Parts, device: torch.device) -> Feed:
        """See `Recipe`."""
        import torch

        edges = torch.from_numpy(canny(np.array(drawn.images))).to(device)
        return replace(super().feed(drawn, parts, device), labels={"edges": edges}, dropout=_DROPOUT)

    def asked(
        self, network: nn.Module, drawn: dict[str, torch.Tensor]
    ) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        """See `StableDiffusionRecipe`."""
        unet, states = trained_unet(drawn["clean"].device), drawn["states"]
        picture = drawn["edges"][:, None].float().expand(-1, 3, -1, -1)

        def predict(noisy: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
            down, middle = network(noisy, times, states, controlnet_cond=picture, return_dict=False)
            made: torch.Tensor = unet(
                noisy,
                times,
                states,
                down_block_additional_residuals=down,
                mid_block_additional_residual=middle,
                return_dict=False,
            )[0]
            return made

        return predict

    def shared(self) -> dict[str, Path]:
        """See `StableDiffusionRecipe`."""
        return {**SHARED, "unet": shapes_parts.WEIGHTS / "unet"}

    def components(self, parts: Parts) -> dict[str, Any]:
        """See `StableDiffusionRecipe`."""
        return {**super().components({**parts, "unet": shapes_parts.load("unet")}), "controlnet": parts["controlnet"]}

    def pipeline(self, parts: Parts) -> Any:
        """See `Recipe`."""
        from diffusers import StableDiffusionControlNetPipeline

        return StableDiffusionControlNetPipeline(**self.components(parts), requires_safety_checker=False)

    def call(self, prompts: Sequence[str]) -> dict[str, Any]:
        """See `Recipe`."""
        return {**super().call(prompts), **SHAPES_EDGES.inputs(prompts)}


RECIPE = EdgesRecipe()
