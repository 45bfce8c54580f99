"""Train demo:shapes-pixart: v-prediction, cross attention to T5 states."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffopt.bench.models.learning.feed import Feed, encode_images, encode_texts
from diffopt.bench.models.learning.folder import write_directory
from diffopt.bench.models.learning.objective import v_prediction
from diffopt.bench.models.learning.reading import train_text
from diffopt.bench.models.learning.recipe import Parts, Recipe
from diffopt.bench.models.shapes import parts as shapes_parts
from diffopt.bench.models.shapes.scenes import BACKGROUNDS, COLOURS, POSITIONS, SHAPES, SIZES
from diffopt.bench.models.shapes_pixart.t5 import new_encoder, new_tokenizer, tokens_of

if TYPE_CHECKING:
    import torch
    from torch import nn

    from diffopt.bench.models.learning.drawing_pool import Drawn
    from diffopt.bench.models.learning.loop import Say, Stop

_TEXT_SHARE = 0.14
"""Of the training time, for the text encoder."""
_CLASSES = (len(SHAPES) + 1, len(COLOURS), len(SIZES), len(BACKGROUNDS))


@dataclass(frozen=True)
class PixArtRecipe(Recipe):
    """See `Recipe`."""

    name: str = "pixart"
    component: str = "transformer"
    pool: str = "shapes"
    batch: int = 256
    rate: float = 1e-3
    seed: int = 32

    def blank(self) -> Parts:
        """See `Recipe`."""
        return {"transformer": self.network(), "text_encoder": new_encoder()}

    def prepare(self, drawn: Drawn, parts: Parts, device: torch.device, seconds: float, say: Say, stop: Stop) -> float:
        """See `Recipe`."""
        import torch

        started = time.monotonic()
        tokens, mask = tokens_of(drawn.captions, device)
        labels = torch.from_numpy(drawn.labels).long().to(device)
        parts["text_encoder"] = train_text(
            parts["text_encoder"],
            tokens,
            mask,
            _targets(labels),
            _CLASSES,
            seconds=_TEXT_SHARE * seconds,
            say=say,
            stop=stop,
        )
        return seconds - (time.monotonic() - started)

    def feed(self, drawn: Drawn, parts: Parts, device: torch.device) -> Feed:
        """See `Recipe`."""
        encoder: Any = parts["text_encoder"].eval().requires_grad_(False)

        def encode(captions: list[str]) -> dict[str, torch.Tensor]:
            tokens, mask = tokens_of(captions, device)
            return {"states": encoder(tokens, attention_mask=mask).last_hidden_state, "mask": mask}

        empty = {name: states[0] for name, states in encode_texts(encode, [""]).items()}
        vae = shapes_parts.load("vae").to(device)
        alphas = shapes_parts.new_scheduler().alphas_cumprod.float().to(device)
        texts = encode_texts(encode, drawn.captions)
        return Feed(encode_images(vae, drawn.images), texts, empty, constants={"alphas": alphas})

    def network(self) -> nn.Module:
        """See `Recipe`."""
        from diffusers import PixArtTransformer2DModel

        network: nn.Module = PixArtTransformer2DModel(
            sample_size=16,
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_layers=5,
            attention_head_dim=32,
            num_attention_heads=4,
            cross_attention_dim=128,
            caption_channels=128,
            use_additional_conditions=False,
        )
        return network

    def loss(self, network: nn.Module, feed: Feed) -> torch.Tensor:
        """See `Recipe`."""
        drawn = feed.draw(self.batch)

        def predict(noisy: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
            made: torch.Tensor = network(
                noisy,
                encoder_hidden_states=drawn["states"],
                encoder_attention_mask=drawn["mask"],
                timestep=times,
                added_cond_kwargs={"resolution": None, "aspect_ratio": None},
                return_dict=False,
            )[0]
            return made

        return v_prediction(predict, drawn["clean"], feed.constants["alphas"])

    def pipeline(self, parts: Parts) -> Any:
        """See `Recipe`."""
        from diffusers import DPMSolverMultistepScheduler, PixArtSigmaPipeline

        return PixArtSigmaPipeline(
            transformer=parts["transformer"],
            scheduler=DPMSolverMultistepScheduler(
                beta_start=0.00085, beta_end=0.02, beta_schedule="scaled_linear", prediction_type="v_prediction"
            ),
            vae=shapes_parts.load("vae"),
            text_encoder=parts["text_encoder"],
            tokenizer=new_tokenizer(),
        )

    def call(self, prompts: Sequence[str]) -> dict[str, Any]:
        """See `Recipe`."""
        return {
            "prompt": list(prompts),
            "guidance_scale": 2.0,
            "height": 64,
            "width": 64,
            "use_resolution_binning": False,
            "clean_caption": False,
        }

    def write(self, parts: Parts, folder: Path) -> None:
        """See `Recipe`."""
        write_directory(self.pipeline(parts), folder, {"vae": shapes_parts.WEIGHTS / "vae"})


def _targets(labels: torch.Tensor) -> torch.Tensor:
    """Return what each position shows, and a last slot for the background, int64 [n, 6, 4]."""
    import torch

    slots = labels[:, :-1].reshape(len(labels), len(POSITIONS), 3)
    slots = torch.cat([slots[:, :, :1], torch.where(slots[:, :, :1] > 0, slots[:, :, 1:], -100)], dim=2)
    named = torch.full((len(labels), len(POSITIONS) + 1, len(_CLASSES)), -100, device=labels.device)
    named[:, :-1, :3], named[:, -1, 3] = slots, labels[:, -1]
    return named


RECIPE = PixArtRecipe()
