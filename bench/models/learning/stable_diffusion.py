"""What recipes in the layout of Stable Diffusion share: a UNet between one text encoder and one autoencoder."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffopt.bench.models.learning import encoders
from diffopt.bench.models.learning.feed import Feed, encode_images, encode_texts
from diffopt.bench.models.learning.folder import write_directory
from diffopt.bench.models.learning.objective import v_prediction
from diffopt.bench.models.learning.recipe import Parts, Recipe
from diffopt.bench.models.shapes import parts as shapes_parts

if TYPE_CHECKING:
    import torch
    from torch import nn

    from diffopt.bench.models.learning.drawing_pool import Drawn

SHARED = {
    "vae": shapes_parts.WEIGHTS / "vae",
    "text_encoder": encoders.CLIP,
    "tokenizer": encoders.CLIP_TOKENIZER,
}
"""The parts of demo:shapes that others use, and where they lie."""


@dataclass(frozen=True)
class StableDiffusionRecipe(Recipe, ABC):
    """See `Recipe`; what is not said otherwise is that of demo:shapes.

    Args:
        guidance: of every call.
    """

    guidance: float = 2.0

    def scheduler(self) -> Any:
        """Return what the pipeline is stepped by."""
        return shapes_parts.new_scheduler()

    def vae(self, parts: Parts) -> Any:
        """Return the autoencoder, frozen."""
        return shapes_parts.load("vae").requires_grad_(False)

    def text_encoder(self, parts: Parts) -> Any:
        """Return the text encoder, frozen."""
        return encoders.load_encoder(encoders.CLIP, "CLIPTextModel")

    def tokenizer(self) -> Any:
        """Return the tokenizer."""
        return encoders.load_tokenizer(encoders.CLIP_TOKENIZER)

    def shared(self) -> dict[str, Path]:
        """Return which parts are links in the model's directory, and where to."""
        return SHARED

    def network(self) -> nn.Module:
        """See `Recipe`; demo:shapes' own with a deepest level no wider than the middle one."""
        network: nn.Module = shapes_parts.new_unet((32, 64, 64), use_linear_projection=True)
        return network

    def feed(self, drawn: Drawn, parts: Parts, device: torch.device) -> Feed:
        """See `Recipe`."""
        encoder, tokenizer = self.text_encoder(parts).to(device), self.tokenizer()

        def encode(captions: list[str]) -> dict[str, torch.Tensor]:
            tokens = encoders.tokens_of(tokenizer, captions, device, tokenizer.model_max_length)
            return {"states": encoder(tokens["input_ids"]).last_hidden_state}

        empty = {name: states[0] for name, states in encode_texts(encode, [""]).items()}
        texts = encode_texts(encode, drawn.captions)
        latents = encode_images(self.vae(parts).to(device), drawn.images)
        alphas = self.scheduler().alphas_cumprod.float().to(device)
        return Feed(latents, texts, empty, constants={"alphas": alphas})

    def loss(self, network: nn.Module, feed: Feed) -> torch.Tensor:
        """See `Recipe`."""
        drawn = feed.draw(self.batch)
        return v_prediction(self.asked(network, drawn), drawn["clean"], feed.constants["alphas"])

    def asked(
        self, network: nn.Module, drawn: dict[str, torch.Tensor]
    ) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        """Return what the network predicts of noisy examples and their timesteps, given what was drawn with them."""

        def predict(noisy: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
            made: torch.Tensor = network(noisy, times, drawn["states"], return_dict=False)[0]
            return made

        return predict

    def components(self, parts: Parts) -> dict[str, Any]:
        """Return all components of the pipeline by name."""
        return {
            "vae": self.vae(parts),
            "text_encoder": self.text_encoder(parts),
            "tokenizer": self.tokenizer(),
            "unet": parts["unet"],
            "scheduler": self.scheduler(),
            "safety_checker": None,
            "feature_extractor": None,
        }

    def pipeline(self, parts: Parts) -> Any:
        """See `Recipe`."""
        from diffusers import StableDiffusionPipeline

        return StableDiffusionPipeline(**self.components(parts), requires_safety_checker=False)

    def call(self, prompts: Sequence[str]) -> dict[str, Any]:
        """See `Recipe`."""
        return {"prompt": list(prompts), "guidance_scale": self.guidance, "height": 64, "width": 64}

    def write(self, parts: Parts, folder: Path) -> None:
        """See `Recipe`."""
        write_directory(self.pipeline(parts), folder, self.shared())


@cache
def trained_unet(device: torch.device) -> Any:
    """Return the UNet of demo:shapes, frozen, once a process."""
    return shapes_parts.load("unet").to(device).eval().requires_grad_(False)
