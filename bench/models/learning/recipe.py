"""What a family of models says about itself, for one training program to make all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

    from diffopt.bench.models.learning.drawing_pool import Drawn
    from diffopt.bench.models.learning.feed import Feed
    from diffopt.bench.models.learning.loop import Say, Stop

Parts = dict[str, "nn.Module"]
"""Trained networks by component name."""


@dataclass(frozen=True)
class Recipe(ABC):
    """How one model is made. A recipe holds no state; its methods are called in the order below, in one process.

    Args:
        name: of the model's training, and of its files.
        component: the denoiser's name in the pipeline.
        pool: which drawn scenes it learns from.
        batch: examples a step.
        rate: highest learning rate.
        seed: of the first weights and of every draw.
        decay: of the moving average of the weights, a step.
    """

    name: str
    component: str
    pool: str
    batch: int
    rate: float
    seed: int
    decay: float = 0.998

    @abstractmethod
    def network(self) -> nn.Module:
        """Return the untrained denoiser."""

    def blank(self) -> Parts:
        """Return every part that training gives, untrained."""
        return {self.component: self.network()}

    def prepare(self, drawn: Drawn, parts: Parts, device: torch.device, seconds: float, say: Say, stop: Stop) -> float:
        """Train in place what the denoiser needs, given `seconds` for it and the denoiser; return the seconds left."""
        return seconds

    @abstractmethod
    def feed(self, drawn: Drawn, parts: Parts, device: torch.device) -> Feed:
        """Return latents and states on the device."""

    @abstractmethod
    def loss(self, network: nn.Module, feed: Feed) -> torch.Tensor:
        """Draw a batch of the feed and return its loss; nothing is read back from the device."""

    def begun(self, network: nn.Module) -> nn.Module:
        """Return the denoiser as it learns, from the denoiser as it is stored."""
        return network

    def finished(self, network: nn.Module) -> nn.Module:
        """Return the denoiser as it is stored, from the denoiser as it learns."""
        return network

    @abstractmethod
    def pipeline(self, parts: Parts) -> Any:
        """Return the diffusers pipeline in memory, of trained parts and shared ones."""

    @abstractmethod
    def call(self, prompts: Sequence[str]) -> dict[str, Any]:
        """Return the arguments of the pipeline's call for prompts, without steps and generator."""

    def scorer(self, parts: Parts) -> Any:
        """Return the reader of images."""
        from diffopt.bench.models.shapes.scorer import Scorer

        return Scorer.load()

    @abstractmethod
    def write(self, parts: Parts, folder: Path) -> None:
        """Write the model directory with links to what is shared."""
