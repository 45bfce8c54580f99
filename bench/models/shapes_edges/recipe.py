"""Train demo:shapes-edges: a ControlNet (Zhang et al., 2023) on the encoder of demo:shapes, whose own weights stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffopt.backends.canny import as_condition, canny
from diffopt.bench.models.learning import encoders
from diffopt.bench.models.learning.feed import Feed, encode_images, encode_texts
from diffopt.bench.models.learning.folder import write_directory
from diffopt.bench.models.learning.objective import v_prediction
from diffopt.bench.models.learning.recipe import Parts, Recipe
from diffopt.bench.models.shapes import parts as shapes_parts
from diffopt.bench.models.shapes_edges import SHAPES_EDGES

if TYPE_CHECKING:
    import torch
    from torch import nn

    from diffopt.bench.models.learning.drawing_pool import Drawn

_EMBEDDING = (16, 32, 32)
"""Channels on the way from the picture of edges to the latent's size, a quarter."""


@dataclass(frozen=True)
class EdgesRecipe(Recipe):
    """See `Recipe`."""

    name: str = "edges"
    component: str = "controlnet"
    pool: str = "shapes"
    batch: int = 32
    rate: float = 1e-3
    seed: int = 36
    decay: float = 0.99

    def feed(self, drawn: Drawn, parts: Parts, device: torch.device) -> Feed:
        """See `Recipe`; three captions in ten are dropped, so that edges alone say something."""
        import torch

        encode = encoders.clip_last(device)
        empty = {name: states[0] for name, states in encode_texts(encode, [""]).items()}
        vae = shapes_parts.load("vae").to(device)
        alphas = shapes_parts.new_scheduler().alphas_cumprod.float().to(device)
        texts = encode_texts(encode, drawn.captions)
        edges = torch.from_numpy(canny(np.array(drawn.images))).to(device)
        latents = encode_images(vae, drawn.images)
        return Feed(latents, texts, empty, {"edges": edges}, {"alphas": alphas}, dropout=0.3)

    def network(self) -> nn.Module:
        """See `Recipe`; its encoder is the UNet's from the start, what it adds is nothing yet."""
        from diffusers import ControlNetModel

        network: nn.Module = ControlNetModel.from_unet(
            shapes_parts.load("unet"), conditioning_embedding_out_channels=_EMBEDDING
        )
        return network

    def loss(self, network: nn.Module, feed: Feed) -> torch.Tensor:
        """See `Recipe`."""
        drawn = feed.draw(self.batch)
        unet, states = _unet(feed.clean.device), drawn["states"]
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

        return v_prediction(predict, drawn["clean"], feed.constants["alphas"])

    def pipeline(self, parts: Parts) -> Any:
        """See `Recipe`."""
        from diffusers import StableDiffusionControlNetPipeline

        return StableDiffusionControlNetPipeline(
            vae=shapes_parts.load("vae"),
            text_encoder=encoders.load_encoder(encoders.CLIP, "CLIPTextModel"),
            tokenizer=encoders.load_tokenizer(encoders.CLIP_TOKENIZER),
            unet=shapes_parts.load("unet"),
            controlnet=parts["controlnet"],
            scheduler=shapes_parts.new_scheduler(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )

    def call(self, prompts: Sequence[str]) -> dict[str, Any]:
        """See `Recipe`."""
        from PIL import Image

        edges = as_condition(canny(SHAPES_EDGES.pictures(prompts)))
        images = [Image.fromarray(picture) for picture in edges]
        return {"prompt": list(prompts), "image": images, "guidance_scale": 2.0, "height": 64, "width": 64}

    def write(self, parts: Parts, folder: Path) -> None:
        """See `Recipe`."""
        shared = {
            "vae": shapes_parts.WEIGHTS / "vae",
            "unet": shapes_parts.WEIGHTS / "unet",
            "text_encoder": encoders.CLIP,
            "tokenizer": encoders.CLIP_TOKENIZER,
        }
        write_directory(self.pipeline(parts), folder, shared)


@cache
def _unet(device: torch.device) -> Any:
    return shapes_parts.load("unet").to(device).eval().requires_grad_(False)


RECIPE = EdgesRecipe()
