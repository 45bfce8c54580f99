"""Train demo:shapes-v: v-prediction, zero terminal signal (Lin et al., 2023), trailing steps, linear projections.

It learns from demo:shapes, whose weights it starts from: the deepest level keeps two channels of three.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffopt.bench.models.learning import encoders
from diffopt.bench.models.learning.feed import Feed, encode_images, encode_texts
from diffopt.bench.models.learning.folder import write_directory
from diffopt.bench.models.learning.inherit import fit_times, inherit, same_noise
from diffopt.bench.models.learning.objective import taught
from diffopt.bench.models.learning.recipe import Parts, Recipe
from diffopt.bench.models.shapes import parts as shapes_parts

if TYPE_CHECKING:
    import torch
    from torch import nn

    from diffopt.bench.models.learning.drawing_pool import Drawn
    from diffopt.bench.models.learning.loop import Say, Stop


@dataclass(frozen=True)
class VRecipe(Recipe):
    """See `Recipe`."""

    name: str = "v"
    component: str = "unet"
    pool: str = "shapes"
    batch: int = 64
    rate: float = 1e-3
    seed: int = 34
    decay: float = 0.99

    def prepare(self, drawn: Drawn, parts: Parts, device: torch.device, seconds: float, say: Say, stop: Stop) -> float:
        """See `Recipe`."""
        started = time.monotonic()
        teacher = _teacher(device)
        inherit(parts["unet"], teacher)
        left = fit_times(parts["unet"], teacher, _teacher_times(device))
        say(f"weights of demo:shapes taken over; {100 * left:.2f} % of the time embedding is not met")
        return seconds - (time.monotonic() - started)

    def feed(self, drawn: Drawn, parts: Parts, device: torch.device) -> Feed:
        """See `Recipe`."""
        encode = encoders.clip_last(device)
        empty = {name: states[0] for name, states in encode_texts(encode, [""]).items()}
        vae = shapes_parts.load("vae").to(device)
        alphas = _scheduler().alphas_cumprod.float().to(device)
        texts = encode_texts(encode, drawn.captions)
        constants = {"alphas": alphas, "times": _teacher_times(device)}
        return Feed(encode_images(vae, drawn.images), texts, empty, constants=constants)

    def network(self) -> nn.Module:
        """See `Recipe`."""
        from diffusers import UNet2DConditionModel

        network: nn.Module = UNet2DConditionModel(
            sample_size=16,
            in_channels=4,
            out_channels=4,
            block_out_channels=(32, 64, 64),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            cross_attention_dim=128,
            attention_head_dim=4,
            norm_num_groups=8,
            use_linear_projection=True,
        )
        return network

    def loss(self, network: nn.Module, feed: Feed) -> torch.Tensor:
        """See `Recipe`."""
        drawn, teacher = feed.draw(self.batch), _teacher(feed.clean.device)

        def predict(noisy: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
            made: torch.Tensor = network(noisy, times, drawn["states"], return_dict=False)[0]
            return made

        def teach(noisy: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
            said: torch.Tensor = teacher(noisy, feed.constants["times"][times], drawn["states"], return_dict=False)[0]
            return said

        return taught(predict, teach, drawn["clean"], feed.constants["alphas"])

    def pipeline(self, parts: Parts) -> Any:
        """See `Recipe`."""
        from diffusers import StableDiffusionPipeline

        return StableDiffusionPipeline(
            vae=shapes_parts.load("vae"),
            text_encoder=encoders.load_encoder(encoders.CLIP, "CLIPTextModel"),
            tokenizer=encoders.load_tokenizer(encoders.CLIP_TOKENIZER),
            unet=parts["unet"],
            scheduler=_scheduler(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
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
        }
        write_directory(self.pipeline(parts), folder, shared)


@cache
def _teacher(device: torch.device) -> Any:
    return shapes_parts.load("unet").to(device).eval().requires_grad_(False)


def _teacher_times(device: torch.device) -> torch.Tensor:
    """Return the step of demo:shapes that is as noisy as each step here, [1000]."""
    return same_noise(_scheduler().alphas_cumprod, shapes_parts.new_scheduler().alphas_cumprod).to(device)


def _scheduler() -> Any:
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,  # of no effect with trailing steps, but the pipeline insists
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
    )


RECIPE = VRecipe()
