"""Train demo:words: an autoencoder, a reader and a text encoder of its own, then the denoiser."""

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
class WordsRecipe(Recipe):
    """See `Recipe`."""

    name: str = "words"
    component: str = "unet"
    pool: str = "words"
    batch: int = 256
    rate: float = 1e-3
    seed: int = 36

    def blank(self) -> Parts:
        """See `Recipe`."""
        return {
            "unet": self.network(),
            "vae": shapes_parts.new_vae(),
            "text_encoder": _new_text_encoder(),
            "scorer": new_network(),
        }

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

    def prepare(self, drawn: Drawn, parts: Parts, device: torch.device, seconds: float, say: Say, stop: Stop) -> float:
        """See `Recipe`."""
        import torch

        started = time.monotonic()
        images = stages.images_on(drawn, device)
        labels = torch.from_numpy(drawn.labels).long().to(device)
        tokens = _tokens(drawn.captions).to(device)
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

    def feed(self, drawn: Drawn, parts: Parts, device: torch.device) -> Feed:
        """See `Recipe`."""
        encoder: Any = parts["text_encoder"].eval().requires_grad_(False)

        def encode(captions: list[str]) -> dict[str, torch.Tensor]:
            return {"states": encoder(_tokens(captions).to(device)).last_hidden_state}

        vae = parts["vae"].eval().requires_grad_(False)
        empty = {name: states[0] for name, states in encode_texts(encode, [""]).items()}
        alphas = shapes_parts.new_scheduler().alphas_cumprod.float().to(device)
        texts = encode_texts(encode, drawn.captions)
        return Feed(encode_images(vae, drawn.images), texts, empty, constants={"alphas": alphas})

    def loss(self, network: nn.Module, feed: Feed) -> torch.Tensor:
        """See `Recipe`."""
        drawn = feed.draw(self.batch)

        def predict(noisy: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
            made: torch.Tensor = network(noisy, times, drawn["states"], return_dict=False)[0]
            return made

        return v_prediction(predict, drawn["clean"], feed.constants["alphas"])

    def pipeline(self, parts: Parts) -> Any:
        """See `Recipe`."""
        from diffusers import StableDiffusionPipeline

        return StableDiffusionPipeline(
            vae=parts["vae"],
            text_encoder=parts["text_encoder"],
            tokenizer=new_tokenizer(),
            unet=parts["unet"],
            scheduler=shapes_parts.new_scheduler(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )

    def call(self, prompts: Sequence[str]) -> dict[str, Any]:
        """See `Recipe`."""
        return {"prompt": list(prompts), "guidance_scale": 3.0, "height": 64, "width": 64}

    def scorer(self, parts: Parts) -> Any:
        """See `Recipe`."""
        network: Any = parts["scorer"].cpu().eval()
        return Scorer(network)

    def write(self, parts: Parts, folder: Path) -> None:
        """See `Recipe`."""
        from safetensors.torch import save_file

        write_directory(self.pipeline(parts), folder, {})
        place = folder / "scorer"
        place.mkdir(exist_ok=True)
        state = parts["scorer"].state_dict()
        halves = {name: (v.half() if v.is_floating_point() else v).contiguous() for name, v in state.items()}
        save_file(halves, place / "model.safetensors")
        (place / "model.safetensors").chmod(0o644)


def _tokens(captions: Sequence[str]) -> torch.Tensor:
    made = new_tokenizer()(
        list(captions), padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt"
    )
    tokens: torch.Tensor = made.input_ids
    return tokens


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
