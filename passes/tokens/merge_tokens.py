"""Merge image tokens that are alike before a UNet attends to itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import denoisers_of
from diffopt.passes.base import DiffusionPass, Example, Family, Refusal, Tier


@dataclass(frozen=True)
class MergeTokens(DiffusionPass):
    """Merge image tokens that are alike before a UNet attends to itself.

    What it does: of each square of four tokens one is kept; a share `ratio` of all tokens, those most alike to a kept one,
    is averaged into it for the self-attention and gets back its result, at the `levels` finest levels that attend. It is
    computed by the tensors of the call, so step plans, compilers and engines take it along.
    When it helps: with large latents, where self-attention grows with the square of their area; on small ones finding
    the likeness costs more than it saves.
    Refuses when: the denoiser is no UNet, or is compiled or exported already.
    What it costs: tier traded: fine texture goes first.
    References: ToMe arXiv 2210.09461; ToMe for Stable Diffusion arXiv 2303.17604.
    """

    name = "merge-tokens"
    family = Family.TOKENS
    tier = Tier.TRADED
    examples = (
        Example("merge-tokens{ratio=0.3}", expect='diffusion.transform "merge_tokens" {ratio = 3.000000e-01'),
        Example("export,merge-tokens", refusal="merge-tokens must come before export"),
        Example("merge-tokens", refusal="is for unets", model="transformer"),
    )
    before = ("family:compilation",)
    one_of = "token-merging"
    architectures = ("unet",)

    ratio: float = 0.5
    levels: int = 1

    def check_options(self) -> None:
        self.require(0.0 < self.ratio <= 0.75, "ratio", "above 0 and up to 0.75: one of four tokens is kept")
        self.require(1 <= self.levels <= 4, "levels", "from 1 to 4")

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        for levels in (1, 2):
            for ratio in (0.25, 0.5, 0.75):
                yield cls(ratio=ratio, levels=levels)

    def refuse(self, module: ModuleOp) -> Refusal | None:
        for denoiser in denoisers_of(module):
            if not denoiser.class_name.data.endswith(".UNet2DConditionModel"):
                reason = f"{denoiser.class_name.data} is no UNet2DConditionModel"
                return Refusal(reason, f"@{denoiser.sym_name.data}", "wrong-kind")
        return None

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for denoiser in denoisers_of(op):
            denoiser.add_transform("merge_tokens", {"ratio": self.ratio, "levels": self.levels}, self.name)
