"""Stage `tokenizer`: a CLIP byte-pair vocabulary in which every word of a caption is one token."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

from diffopt.bench.models.shapes import parts
from diffopt.bench.models.shapes.captions import words
from diffopt.bench.models.shapes.training import log

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

_END = "</w>"


def run() -> None:
    """Train and save the tokenizer, and a first, untrained version of every part that is not there yet."""
    import torch

    vocabulary, merges = learn(words())
    tokenizer = _tokenizer(vocabulary, merges)
    parts.save("tokenizer", tokenizer)
    parts.save("scheduler", parts.new_scheduler())
    torch.manual_seed(0)
    for part in ("vae", "unet", "text_encoder"):
        if not (parts.WEIGHTS / part).exists():
            new = {"vae": parts.new_vae, "unet": parts.new_unet}
            parts.save(part, parts.new_text_encoder(tokenizer) if part == "text_encoder" else new[part]())
    parts.save_index()
    log("tokenizer", f"{len(vocabulary)} tokens, {len(merges)} merges")


def learn(corpus: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Learn byte pairs until every word of the corpus is one token; return vocabulary and merges."""
    from tokenizers.pre_tokenizers import ByteLevel

    alphabet = sorted(ByteLevel.alphabet())
    pieces = [[*word[:-1], word[-1] + _END] for word in corpus]
    merges: list[tuple[str, str]] = []
    while pairs := Counter(pair for word in pieces for pair in pairwise(word)):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        pieces = [_merge(word, best) for word in pieces]
    merged = [left + right for left, right in merges]
    tokens = [*alphabet, *(letter + _END for letter in alphabet), *merged, "<|startoftext|>", "<|endoftext|>"]
    return {token: index for index, token in enumerate(dict.fromkeys(tokens))}, merges


def _merge(word: list[str], pair: tuple[str, str]) -> list[str]:
    out: list[str] = []
    for piece in word:
        if out and (out[-1], piece) == pair:
            out[-1] += piece
        else:
            out.append(piece)
    return out


def _tokenizer(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> CLIPTokenizer:
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer(
        vocab=vocabulary,
        merges=merges,
        model_max_length=parts.TOKENS,
        bos_token="<|startoftext|>",
        eos_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        pad_token="<|endoftext|>",
    )
    for word in words():
        if len(pieces := tokenizer(word, add_special_tokens=False)["input_ids"]) != 1:
            raise RuntimeError(f"{word!r} became {len(pieces)} tokens")
    return tokenizer
