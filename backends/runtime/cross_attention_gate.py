"""Freeze what the cross-attentions of a denoiser give out (in the manner of T-GATE, arXiv 2404.02747)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from diffopt.backends.base import BackendError
from diffopt.backends.runtime.taps import Taps


def tap_cross_attentions(denoiser: Any) -> Taps:
    """Tap every cross-attention to the text.

    Raises BackendError if there is none.
    """
    found = [
        module.attn2
        for module in denoiser.modules()
        if type(module).__name__ == "BasicTransformerBlock" and getattr(module.attn2, "is_cross_attention", False)
    ]
    if not found:
        raise BackendError(f"{type(denoiser).__name__} has no cross-attention of its own to freeze")
    return Taps([(attention, FrozenAttention(index)) for index, attention in enumerate(found)], width=len(found))


@dataclass(frozen=True)
class FrozenAttention:
    """One cross-attention, by its place among them."""

    index: int

    def full(self, run: Callable[..., Any], given: dict[str, Any], features: list[torch.Tensor]) -> Any:
        result = run()
        features.extend([result] * (self.index + 1 - len(features)))
        features[self.index] = result
        return result

    def shallow(self, given: dict[str, Any], features: list[torch.Tensor]) -> Any:
        return features[self.index]
