"""Train demo:shapes-xl: two text encoders side by side, and the size an image had before it was scaled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

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

_COARSE = 8
"""One image in eight is scaled down to 32 pixels and up again, and says so."""


@dataclass(frozen=True)
class XLRecipe(Recipe):
    """See `Recipe`."""

    name: str = "xl"
    component: str = "unet"
    pool: str = "shapes"
    batch: int = 256
    rate: float = 1e-3
    seed: int = 33

    def feed(self, drawn: Drawn, parts: Parts, device: torch.device) -> Feed:
        """See `Recipe`."""
        import torch

        vae = shapes_parts.load("vae").to(device)
        alphas = shapes_parts.new_scheduler().alphas_cumprod.float().to(device)
        sizes = torch.full((len(drawn.images),), 64.0, device=device)
        sizes[::_COARSE] = 32.0
        images = np.array(drawn.images)
        small = images[::_COARSE].reshape(-1, 32, 2, 32, 2, 3).mean(axis=(2, 4))
        images[::_COARSE] = np.rint(small).astype(np.uint8).repeat(2, axis=1).repeat(2, axis=2)
        texts = encode_texts(encoders.clip_both(device), drawn.captions)
        # The pipeline's own answer to no negative prompt is zeros.
        empty = {name: torch.zeros_like(states[0]) for name, states in texts.items()}
        return Feed(encode_images(vae, images), texts, empty, {"size": sizes}, {"alphas": alphas})

    def network(self) -> nn.Module:
        """See `Recipe`."""
        from diffusers import UNet2DConditionModel

        network: nn.Module = UNet2DConditionModel(
            sample_size=16,
            in_channels=4,
            out_channels=4,
            block_out_channels=(32, 40, 56),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            transformer_layers_per_block=(1, 1, 1),
            cross_attention_dim=256,
            attention_head_dim=(2, 2, 4),
            norm_num_groups=8,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=16,
            projection_class_embeddings_input_dim=6 * 16 + 128,
        )
        return network

    def loss(self, network: nn.Module, feed: Feed) -> torch.Tensor:
        """See `Recipe`."""
        import torch

        drawn = feed.draw(self.batch)
        original, zero = drawn["size"], torch.zeros_like(drawn["size"])
        full = torch.full_like(original, 64.0)
        ids = torch.stack([original, original, zero, zero, full, full], dim=1)

        def predict(noisy: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
            made: torch.Tensor = network(
                noisy,
                times,
                encoder_hidden_states=drawn["states"],
                added_cond_kwargs={"text_embeds": drawn["pooled"], "time_ids": ids},
                return_dict=False,
            )[0]
            return made

        return v_prediction(predict, drawn["clean"], feed.constants["alphas"])

    def pipeline(self, parts: Parts) -> Any:
        """See `Recipe`."""
        from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

        tokenizer = encoders.load_tokenizer(encoders.CLIP_TOKENIZER)
        return StableDiffusionXLPipeline(
            vae=shapes_parts.load("vae"),
            text_encoder=encoders.load_encoder(encoders.CLIP, "CLIPTextModel"),
            text_encoder_2=encoders.load_encoder(encoders.CLIP_2, "CLIPTextModelWithProjection"),
            tokenizer=tokenizer,
            tokenizer_2=tokenizer,
            unet=parts["unet"],
            scheduler=EulerDiscreteScheduler(
                beta_start=0.00085,
                beta_end=0.02,
                beta_schedule="scaled_linear",
                prediction_type="v_prediction",
                timestep_spacing="leading",
                steps_offset=1,
            ),
            add_watermarker=False,
        )

    def call(self, prompts: Sequence[str]) -> dict[str, Any]:
        """See `Recipe`."""
        return {"prompt": list(prompts), "guidance_scale": 2.0, "height": 64, "width": 64}

    def write(self, parts: Parts, folder: Path) -> None:
        """See `Recipe`."""
        shared = {
            "vae": shapes_parts.WEIGHTS / "vae",
            "text_encoder": encoders.CLIP,
            "tokenizer": encoders.CLIP_TOKENIZER,
            "tokenizer_2": encoders.CLIP_TOKENIZER,
        }
        write_directory(self.pipeline(parts), folder, shared)


RECIPE = XLRecipe()
