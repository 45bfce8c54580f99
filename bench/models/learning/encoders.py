"""The text encoders the models share: where they lie, how they are loaded, what they say about captions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

MODELS = Path(__file__).resolve().parent.parent
CLIP = MODELS / "shapes" / "weights" / "text_encoder"
CLIP_TOKENIZER = MODELS / "shapes" / "weights" / "tokenizer"
CLIP_2 = MODELS / "shapes_xl" / "weights" / "text_encoder_2"
"""The second CLIP encoder, two layers with a projection; demo:shapes-xl and demo:shapes-flow use it."""
TOKENS = 32
_NOT_SETTINGS = ("architectures", "dtype", "model_type", "torch_dtype", "transformers_version")

Encode = Callable[[list[str]], "dict[str, torch.Tensor]"]


def load_encoder(folder: Path, kind: str) -> Any:
    """Load a CLIP text encoder of a transformers class as float32.

    Read by hand and strictly: transformers names the weights of its CLIP classes differently from version to version
    and only warns when it fills a weight with noise.

    Raises:
        KeyError: a weight is missing.
    """
    import torch
    import transformers
    from safetensors.torch import load_file

    config = json.loads((folder / "config.json").read_text())
    settings = {key: value for key, value in config.items() if key not in _NOT_SETTINGS}
    network: nn.Module = getattr(transformers, kind)(transformers.CLIPTextConfig(**settings))
    stored = {_bare(name): value for name, value in load_file(folder / "model.safetensors").items()}
    state = dict(network.state_dict())
    for name, value in state.items():
        found = stored.get(_bare(name))
        if found is not None:
            state[name] = found.to(torch.float32)
        elif value.is_floating_point():
            raise KeyError(f"{folder}: no weight {name}")
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


def _bare(name: str) -> str:
    return name.removeprefix("text_model.")


def load_tokenizer(folder: Path, kind: str = "CLIPTokenizer") -> Any:
    """Load a tokenizer of a transformers class."""
    import transformers

    tokenizer = getattr(transformers, kind).from_pretrained(folder)
    if len(found := tokenizer("a red circle").input_ids) != 5:
        raise ValueError(f"{folder}: read as another vocabulary, a caption of three words has {len(found)} tokens")
    return tokenizer


def tokens_of(
    tokenizer: Any, captions: list[str], device: torch.device, length: int = TOKENS
) -> dict[str, torch.Tensor]:
    """Return "input_ids" and "attention_mask" [n, length] of captions, padded as the pipelines do."""
    made = tokenizer(captions, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    return {name: made[name].to(device) for name in ("input_ids", "attention_mask")}


def clip_last(device: torch.device) -> Encode:
    """Return what StableDiffusionPipeline feeds its UNet: "states", the last hidden states of the first encoder."""
    encoder, tokenizer = load_encoder(CLIP, "CLIPTextModel").to(device), load_tokenizer(CLIP_TOKENIZER)

    def encode(captions: list[str]) -> dict[str, torch.Tensor]:
        return {"states": encoder(tokens_of(tokenizer, captions, device)["input_ids"]).last_hidden_state}

    return encode


def clip_both(device: torch.device) -> Encode:
    """Return what StableDiffusionXLPipeline feeds its UNet: "states" of both encoders side by side, "pooled"."""
    import torch

    first = load_encoder(CLIP, "CLIPTextModel").to(device)
    second = load_encoder(CLIP_2, "CLIPTextModelWithProjection").to(device)
    tokenizer = load_tokenizer(CLIP_TOKENIZER)

    def encode(captions: list[str]) -> dict[str, torch.Tensor]:
        tokens = tokens_of(tokenizer, captions, device)["input_ids"]
        one, two = first(tokens, output_hidden_states=True), second(tokens, output_hidden_states=True)
        states = torch.cat([one.hidden_states[-2], two.hidden_states[-2]], dim=-1)
        return {"states": states, "pooled": two.text_embeds}

    return encode


def clip_second(device: torch.device) -> Encode:
    """Return "states" and "pooled" of the second encoder alone."""
    encoder = load_encoder(CLIP_2, "CLIPTextModelWithProjection").to(device)
    tokenizer = load_tokenizer(CLIP_TOKENIZER)

    def encode(captions: list[str]) -> dict[str, torch.Tensor]:
        made = encoder(tokens_of(tokenizer, captions, device)["input_ids"], output_hidden_states=True)
        return {"states": made.hidden_states[-2], "pooled": made.text_embeds}

    return encode
