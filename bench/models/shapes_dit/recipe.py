"""Train demo:shapes-dit: v-prediction, the class in every block's normalization."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffopt.bench.models.learning.feed import Feed, encode_images
from diffopt.bench.models.learning.folder import write_directory
from diffopt.bench.models.learning.objective import v_prediction
from diffopt.bench.models.learning.recipe import Parts, Recipe
from diffopt.bench.models.shapes import parts as shapes_parts
from diffopt.bench.models.shapes_dit.classes import labels

if TYPE_CHECKING:
    import torch
    from torch import nn

    from diffopt.bench.models.learning.drawing_pool import Drawn


@dataclass(frozen=True)
class DiTRecipe(Recipe):
    """See `Recipe`."""

    name: str = "dit"
    component: str = "transformer"
    pool: str = "single"
    batch: int = 256
    rate: float = 1e-3
    seed: int = 35

    def feed(self, drawn: Drawn, parts: Parts, device: torch.device) -> Feed:
        """See `Recipe`."""
        import torch

        numbers = {name: number for number, name in labels().items()}
        classes = torch.tensor([numbers[caption] for caption in drawn.captions], device=device)
        vae = shapes_parts.load("vae").to(device)
        alphas = shapes_parts.new_scheduler().alphas_cumprod.float().to(device)
        return Feed(encode_images(vae, drawn.images), labels={"classes": classes}, constants={"alphas": alphas})

    def network(self) -> nn.Module:
        """See `Recipe`; a class is dropped inside the network, one time in ten."""
        from diffusers import DiTTransformer2DModel

        network: nn.Module = DiTTransformer2DModel(
            sample_size=16,
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_layers=4,
            attention_head_dim=16,
            num_attention_heads=4,
            norm_num_groups=8,
            num_embeds_ada_norm=1000,
        )
        return network.train()

    def loss(self, network: nn.Module, feed: Feed) -> torch.Tensor:
        """See `Recipe`."""
        drawn = feed.draw(self.batch)

        def predict(noisy: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
            made: torch.Tensor = network(noisy, timestep=times, class_labels=drawn["classes"], return_dict=False)[0]
            return made

        return v_prediction(predict, drawn["clean"], feed.constants["alphas"])

    def pipeline(self, parts: Parts) -> Any:
        """See `Recipe`."""
        from diffusers import DiTPipeline

        return DiTPipeline(
            transformer=parts["transformer"],
            vae=shapes_parts.load("vae"),
            scheduler=shapes_parts.new_scheduler(),
            id2label=labels(),
        )

    def call(self, prompts: Sequence[str]) -> dict[str, Any]:
        """See `Recipe`."""
        numbers = {name: number for number, name in labels().items()}
        return {"class_labels": [numbers[prompt] for prompt in prompts], "guidance_scale": 2.0}

    def write(self, parts: Parts, folder: Path) -> None:
        """See `Recipe`."""
        write_directory(self.pipeline(parts), folder, {"vae": shapes_parts.WEIGHTS / "vae"})


RECIPE = DiTRecipe()
