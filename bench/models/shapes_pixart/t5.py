"""The T5 encoder of demo:shapes-pixart and its tokenizer, small."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from diffopt.bench.models.shapes.captions import words

if TYPE_CHECKING:
    import torch
    from torch import nn

TOKENS = 32
"""Length of a tokenized caption in training; the mask makes further padding of no effect."""
WIDTH = 128


@cache
def new_tokenizer() -> Any:
    """Return a T5 (unigram) tokenizer in which every word of a caption is one piece."""
    from transformers import T5Tokenizer

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), (",", -2.0), ("▁", -6.0)]
    pieces += [(f"▁{word}", -3.0) for word in words() if word != ","]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=512)


def new_encoder() -> nn.Module:
    """Return the untrained encoder (0.34 M parameters)."""
    import torch
    from transformers import T5Config, T5EncoderModel

    encoder: Any = T5EncoderModel(
        T5Config(
            vocab_size=len(new_tokenizer()),
            d_model=WIDTH,
            d_kv=32,
            d_ff=2 * WIDTH,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
        )
    )
    with torch.no_grad():
        encoder.shared.weight.mul_(0.2)  # T5's own scale drowns what the blocks add, in so short a training
    network: nn.Module = encoder
    return network


def tokens_of(captions: Sequence[str], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids and mask, int64 [n, 32]."""
    made = new_tokenizer()(
        list(captions), padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt"
    )
    return made.input_ids.to(device), made.attention_mask.to(device)
