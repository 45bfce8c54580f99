"""Train demo:shapes-flow: rectified flow, two CLIP slots that hold one encoder, no T5 (256 empty tokens instead)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffopt.bench.models.learning import encoders
from diffopt.bench.models.learning.feed import Feed, encode_images, encode_texts
from diffopt.bench.models.learning.folder import write_directory
from diffopt.bench.models.learning.objective import flow_velocity
from diffopt.bench.models.learning.recipe import Parts, Recipe
from diffopt.bench.models.shapes import parts as shapes_parts

if TYPE_CHECKING:
    import torch
    from torch import nn

    from diffopt.bench.models.learning.drawing_pool import Drawn

SHIFT = 3.0
"""Of the schedule, in training and in sampling: most of the steps are spent where the image is still noise."""
EMPTY_TOKENS = 256
"""What StableDiffusion3Pipeline puts in the place of a missing T5 encoder, in the default call."""


@dataclass(frozen=True)
class FlowRecipe(Recipe):
    """See `Recipe`."""

    name: str = "flow"
    component: str = "transformer"
    pool: str = "shapes"
    batch: int = 128
    rate: float = 1e-3
    seed: int = 31

    def feed(self, drawn: Drawn, parts: Parts, device: torch.device) -> Feed:
        """See `Recipe`."""
        encode = encoders.clip_second(device)
        empty = {name: states[0] for name, states in encode_texts(encode, [""]).items()}
        vae = shapes_parts.load("vae").to(device)
        return Feed(encode_images(vae, drawn.images), encode_texts(encode, drawn.captions), empty)

    def network(self) -> nn.Module:
        """See `Recipe`."""
        from diffusers import SD3Transformer2DModel

        network: nn.Module = SD3Transformer2DModel(
            sample_size=16,
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_layers=4,
            attention_head_dim=32,
            num_attention_heads=4,
            joint_attention_dim=256,
            caption_projection_dim=128,
            pooled_projection_dim=256,
            pos_embed_max_size=16,
            qk_norm="rms_norm",
        )
        return network

    def loss(self, network: nn.Module, feed: Feed) -> torch.Tensor:
        """See `Recipe`."""
        import torch

        drawn = feed.draw(self.batch)
        states = torch.cat([drawn["states"], drawn["states"]], dim=-1)
        states = torch.nn.functional.pad(states, (0, 0, 0, EMPTY_TOKENS))
        pooled = torch.cat([drawn["pooled"], drawn["pooled"]], dim=-1)

        def predict(noisy: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
            made: torch.Tensor = network(
                hidden_states=noisy,
                timestep=times,
                encoder_hidden_states=states,
                pooled_projections=pooled,
                return_dict=False,
            )[0]
            return made

        return flow_velocity(predict, drawn["clean"], SHIFT)

    def pipeline(self, parts: Parts) -> Any:
        """See `Recipe`."""
        from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline

        shared = shapes_parts.load("vae")
        vae = AutoencoderKL.from_config({**shared.config, "shift_factor": 0.0})
        vae.load_state_dict(shared.state_dict())
        encoder = encoders.load_encoder(encoders.CLIP_2, "CLIPTextModelWithProjection")
        tokenizer = encoders.load_tokenizer(encoders.CLIP_TOKENIZER)
        return StableDiffusion3Pipeline(
            transformer=parts["transformer"],
            scheduler=FlowMatchEulerDiscreteScheduler(shift=SHIFT),
            vae=vae,
            text_encoder=encoder,
            tokenizer=tokenizer,
            text_encoder_2=encoder,
            tokenizer_2=tokenizer,
            text_encoder_3=None,
            tokenizer_3=None,
        )

    def call(self, prompts: Sequence[str]) -> dict[str, Any]:
        """See `Recipe`."""
        return {"prompt": list(prompts), "guidance_scale": 2.0, "height": 64, "width": 64}

    def write(self, parts: Parts, folder: Path) -> None:
        """See `Recipe`."""
        shared = {
            "text_encoder": encoders.CLIP_2,
            "text_encoder_2": encoders.CLIP_2,
            "tokenizer": encoders.CLIP_TOKENIZER,
            "tokenizer_2": encoders.CLIP_TOKENIZER,
        }
        write_directory(self.pipeline(parts), folder, shared)
        weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
        weights.unlink()
        weights.symlink_to("../../../shapes/weights/vae/diffusion_pytorch_model.safetensors")


RECIPE = FlowRecipe()
