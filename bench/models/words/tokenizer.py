"""The tokenizer of demo:words: a CLIP byte-pair vocabulary in which every word and every letter is one token."""

from __future__ import annotations

from functools import cache
from typing import Any

from diffopt.bench.models.shapes.train_tokenizer import learn
from diffopt.bench.models.words.captions import words

TOKENS = 48
"""Length of a tokenized prompt."""


@cache
def new_tokenizer() -> Any:
    """Return the tokenizer; it follows from the words of the captions alone."""
    from transformers import CLIPTokenizer

    vocabulary, merges = learn(words())
    return CLIPTokenizer(
        vocab=vocabulary,
        merges=merges,
        model_max_length=TOKENS,
        bos_token="<|startoftext|>",
        eos_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        pad_token="<|endoftext|>",
    )
