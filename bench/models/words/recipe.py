"""Train demo:words: an autoencoder, a reader and a text encoder of its own, then the denoiser."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffopt.bench.models.learning import encoders
from diffopt.bench.models.learning.reading import train_text
from diffopt.bench.models.learning.recipe import Parts
from diffopt.bench.models.learning.stable_diffusion import StableDiffusionRecipe
from diffopt.bench.models.shapes import parts as shapes_parts
from diffopt.bench.models.words import stages
from diffopt.bench.models.words.scorer import HEADS, Scorer, new_network
from diffopt.bench.models.words.tokenizer import TOKENS, new_tokenizer

if TYPE_CHECKING:
    import torch
    from torch import nn

    from diffopt.bench.models.learning.drawing_pool import Drawn
    from diffopt.bench.models.learning.loop import Say, Stop

_SHARES = {"text": 0.07, "scorer": 0.1, "vae": 0.23}
"""Of the training time; the rest is the denoiser's."""


@dataclass(frozen=True)
class WordsRecipe(StableDiffusionRecipe):
    """See `Recipe`."""

    name: str = "words"
    component: str = "unet"
    pool: str = "words"
    batch: int = 256
    rate: float = 1e-3
    seed: int = 36
    guidance: float = 3.0

    def blank(self) -> Parts:
        """See `Recipe`."""
        return {
            "unet": self.network(),
            "vae": shapes_parts.new_vae(),
            "text_encoder": _new_text_encoder(),
            "scorer": new_network(),
        }

    def prepare(self, drawn: Drawn, parts: Parts, device: torch.device, seconds: float, say: Say, stop: Stop) -> float:
        """See `Recipe`."""
        import torch

        started = time.monotonic()
        images = stages.images_on(drawn, device)
        labels = torch.from_numpy(drawn.labels).long().to(device)
        tokens = encoders.tokens_of(self.tokenizer(), drawn.captions, device, TOKENS)["input_ids"]
        given = {stage: share * seconds for stage, share in _SHARES.items()}
        parts["text_encoder"] = train_text(
            parts["text_encoder"],
            tokens,
            None,
            stages.quarter_targets(labels),
            HEADS,
            seconds=given["text"],
            say=say,
            stop=stop,
        )
        parts["scorer"] = stages.train_scorer(parts["scorer"], images, labels, given["scorer"], say, stop)
        parts["vae"] = stages.train_vae(parts["vae"], images, given["vae"], say, stop)
        return seconds - (time.monotonic() - started)

    def vae(self, parts: Parts) -> Any:
        """See `StableDiffusionRecipe`."""
        return parts["vae"].eval().requires_grad_(False)

    def text_encoder(self, parts: Parts) -> Any:
        """See `StableDiffusionRecipe`."""
        return parts["text_encoder"].eval().requires_grad_(False)

    def tokenizer(self) -> Any:
        """See `StableDiffusionRecipe`."""
        return new_tokenizer()

    def shared(self) -> dict[str, Path]:
        """See `StableDiffusionRecipe`."""
        return {}

    def scorer(self, parts: Parts) -> Any:
        """See `Recipe`."""
        network: Any = parts["scorer"].cpu().eval()
        return Scorer(network)

    def write(self, parts: Parts, folder: Path) -> None:
        """See `Recipe`."""
        from safetensors.torch import save_file

        super().write(parts, folder)
        place = folder / "scorer"
        place.mkdir(exist_ok=True)
        state = parts["scorer"].state_dict()
        halves = {name: (v.half() if v.is_floating_point() else v).contiguous() for name, v in state.items()}
        save_file(halves, place / "model.safetensors")
        (place / "model.safetensors").chmod(0o644)


def _new_text_encoder() -> nn.Module:
    from transformers import CLIPTextConfig, CLIPTextModel

    tokenizer = new_tokenizer()
    network: nn.Module = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=256,
            projection_dim=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    return network


RECIPE = WordsRecipe()
