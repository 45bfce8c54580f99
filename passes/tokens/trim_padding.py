"""Cut the padding of prompts off before the denoiser sees it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import components
from diffopt.passes.base import DiffusionPass, Example, Family, Refusal, Tier

MASKS = ("PixArtAlphaPipeline", "PixArtSigmaPipeline", "SanaPipeline", "LTXPipeline")
"""Pipelines of diffusers 0.42 whose denoiser masks the padding in every layer, so that it counts for nothing."""


@dataclass(frozen=True)
class TrimPadding(DiffusionPass):
    """Cut the padding of prompts off before the denoiser sees it.

    What it does: prompts are padded to 120 or 300 tokens and most have 20; where the denoiser masks the padding, embeddings
    and masks are cut to the longest prompt of a request, rounded up to `multiple`, once and ahead of the loop.
    When it helps: with long padding and small images, where cross-attention is a large share.
    Refuses when: the pipeline does not mask its padding (then the images would be others), or an engine of the denoiser is
    made for one length.
    What it costs: tier exact: masked tokens have the weight zero; compiled code is made anew for each length.
    References: none needed.
    """

    name = "trim-padding"
    family = Family.TOKENS
    tier = Tier.EXACT
    examples = (
        Example("trim-padding", expect='diffusion.transform "trim_padding" {multiple = 16', model="transformer"),
        Example("trim-padding", refusal="does not mask its padding"),
        Example("trim-padding", refusal="does not mask its padding", model="flux"),
    )
    one_of = "prompt-length"
    excludes = MappingProxyType({"export": "an engine is made for one length of the prompt"})

    multiple: int = 16

    def check_options(self) -> None:
        self.require(1 <= self.multiple <= 128, "multiple", "from 1 to 128")

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        for multiple in (8, 16, 32):
            yield cls(multiple=multiple)

    def refuse(self, module: ModuleOp) -> Refusal | None:
        pipeline = components(module)["pipeline"]
        name = pipeline.class_name.data.rpartition(".")[2]
        if name not in MASKS:
            return Refusal(f"{name} does not mask its padding in every layer", "@pipeline", "wrong-kind")
        done = any(transform.transform.data == "trim_padding" for transform in pipeline.transforms)
        return Refusal("the padding is cut off already", "@pipeline", "one-of") if done else None

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        components(op)["pipeline"].add_transform("trim_padding", {"multiple": self.multiple}, self.name)
