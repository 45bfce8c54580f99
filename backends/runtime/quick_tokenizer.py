"""Tokenize prompts as a pipeline does, without most of the time it takes there."""

from __future__ import annotations

import logging
from typing import Any

import torch

PROBES = ("", "a", "A  red circle, left!", "naïve ½ ☃\n", "a<|endoftext|> x")


class QuickTokenizer:
    """Calls the Rust tokenizer beneath a `transformers` one directly, where that was seen to give the same ids."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._length = tokenizer.model_max_length
        self._pad = tokenizer.pad_token_id
        self._core = _core(tokenizer)
        if self._core is not None and not self._agrees():
            self._core = None

    def __call__(self, prompts: list[str]) -> torch.Tensor:
        """Return token ids, int64, prompts × the tokenizer's length. Prompts that are too long are cut, with a warning."""
        if self._core is None:
            return self._slow(prompts)
        rows = [self._row(prompt) for prompt in prompts]
        return self._slow(prompts) if None in rows else torch.tensor(rows)

    def _row(self, prompt: str) -> list[int] | None:
        """Return one prompt's ids, or None if it is too long."""
        ids: list[int] = self._core.encode(prompt).ids
        return None if len(ids) > self._length else ids + [self._pad] * (self._length - len(ids))

    def _slow(self, prompts: list[str]) -> torch.Tensor:
        ids = self._padded(prompts)
        longest = self._tokenizer(prompts, padding="longest", return_tensors="pt").input_ids
        if longest.shape[-1] > ids.shape[-1]:
            removed = self._tokenizer.batch_decode(longest[:, self._length - 1 : -1])
            message = "the prompt was cut after %d tokens; removed: %s"
            logging.getLogger("diffopt").warning(message, self._length, removed)
        return ids

    def _padded(self, prompts: list[str]) -> torch.Tensor:
        ids: torch.Tensor = self._tokenizer(
            prompts, padding="max_length", max_length=self._length, truncation=True, return_tensors="pt"
        ).input_ids
        return ids

    def _agrees(self) -> bool:
        rows = {probe: self._row(probe) for probe in PROBES}
        return all(self._padded([probe]).tolist() == [row] for probe, row in rows.items() if row is not None)


def _core(tokenizer: Any) -> Any:
    """Return a copy of the Rust tokenizer that neither pads nor cuts, or None if there is none."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or tokenizer.pad_token_id is None or getattr(tokenizer, "padding_side", "right") != "right":
        return None
    core = type(backend).from_str(backend.to_str())
    core.no_padding()
    core.no_truncation()
    return core
