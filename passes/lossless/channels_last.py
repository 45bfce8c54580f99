"""Lay out the UNet's convolutions with channels last."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import denoisers_of
from diffopt.passes.base import DiffusionPass, Example, Family, Tier


@dataclass(frozen=True)
class ChannelsLast(DiffusionPass):
    """Lay out the UNet's convolutions with channels last.

    What it does: stores convolution weights so that the channels of a pixel lie together, and images follow.
    When it helps: on GPUs in 16 bits, and with some CPU kernels; on others it costs as much as it saves.
    Refuses when: the denoiser is no UNet, or is compiled or exported already (an engine picks its own layout).
    What it costs: tier exact, to the last bits of another order of summation.
    References: PyTorch, "Channels Last Memory Format in PyTorch".
    """

    name = "channels-last"
    family = Family.LOSSLESS
    tier = Tier.EXACT
    examples = (
        Example("channels-last", expect='diffusion.transform "channels_last"'),
        Example("export,channels-last", refusal="channels-last must come before export"),
    )
    before = ("family:quantization", "family:compilation")
    architectures = ("unet",)
    one_of = "layout"

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        yield cls()

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for denoiser in denoisers_of(op):
            denoiser.add_transform("channels_last", {}, self.name)
