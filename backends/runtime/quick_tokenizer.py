"""Tokenize prompts as a pipeline does, without most of the time it takes there."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch

from diffopt.backends.base import JSON

PROBES = ("", "a", "A  red circle, left!", "naïve ½ ☃\n", "a<|endoftext|> x")
PADDED: Mapping[str, JSON] = {"padding": "max_length", "truncation": True}
"""How pipelines have prompts tokenized: filled or cut to one length."""


class QuickTokenizer:
    """Calls the Rust tokenizer beneath a `transformers` one directly, where that was seen to give the same.

    settings: arguments of the pipeline's own call of the tokenizer, which pads to its `max_length`.
    """

    def __init__(self, tokenizer: Any, settings: Mapping[str, JSON] = PADDED) -> None:
        self._tokenizer = tokenizer
        self._settings = dict(settings)
        given = settings.get("max_length")
        self._length = given if isinstance(given, int) else int(tokenizer.model_max_length)
        self._settings["max_length"] = self._length
        self._special = settings.get("add_special_tokens") is not False
        self._pad = tokenizer.pad_token_id
        self._core = _core(tokenizer)
        if self._core is not None and not self._agrees():
            self._core = None

    def __call__(self, prompts: list[str]) -> torch.Tensor:
        """Return token ids, int64, prompts × the length. Prompts that are too long are cut, with a warning."""
        return self.fields(prompts)["input_ids"]

    def fields(self, prompts: list[str]) -> Mapping[str, torch.Tensor]:
        """Return token ids and, where the tokenizer makes it, which of them are no padding; both int64."""
        if self._core is None:
            return self._slow(prompts)
        rows = [self._row(prompt) for prompt in prompts]
        if any(row is None for row in rows):
            return self._slow(prompts)
        ids = [row + [self._pad] * (self._length - len(row)) for row in rows if row is not None]
        used = [[1] * len(row) + [0] * (self._length - len(row)) for row in rows if row is not None]
        return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(used)}

    def _row(self, prompt: str) -> list[int] | None:
        """Return one prompt's ids, or None if it is too long."""
        ids: list[int] = self._core.encode(prompt, add_special_tokens=self._special).ids
        return None if len(ids) > self._length else ids

    def _slow(self, prompts: list[str]) -> Mapping[str, torch.Tensor]:
        found = self._padded(prompts)
        longest = self._tokenizer(prompts, padding="longest", return_tensors="pt").input_ids
        if longest.shape[-1] > found["input_ids"].shape[-1]:
            removed = self._tokenizer.batch_decode(longest[:, self._length - 1 : -1])
            message = "the prompt was cut after %d tokens; removed: %s"
            logging.getLogger("diffopt").warning(message, self._length, removed)
        return found

    def _padded(self, prompts: list[str]) -> Mapping[str, torch.Tensor]:
        return {**self._tokenizer(prompts, **{**self._settings, "return_tensors": "pt"})}

    def _agrees(self) -> bool:
        for probe in PROBES:
            if self._row(probe) is not None:
                mine, theirs = self.fields([probe]), self._padded([probe])
                if any(not torch.equal(value, mine[name]) for name, value in theirs.items() if name in mine):
                    return False
        return True


def _core(tokenizer: Any) -> Any:
    """Return a copy of the Rust tokenizer that neither pads nor cuts, or None if there is none."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or tokenizer.pad_token_id is None or getattr(tokenizer, "padding_side", "right") != "right":
        return None
    core = type(backend).from_str(backend.to_str())
    core.no_padding()
    core.no_truncation()
    return core
