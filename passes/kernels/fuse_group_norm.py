"""Norm and activate images in one kernel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Self

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import components, denoisers_of
from diffopt.passes.base import DiffusionPass, Example, Family, Refusal, Tier


@dataclass(frozen=True)
class FuseGroupNorm(DiffusionPass):
    """Norm and activate images in one kernel.

    What it does: runs each residual block's group norms, the SiLU behind them and the time embedding added ahead of them as
    Triton kernels that read channels where they lie, first or last.
    When it helps: on a GPU in 16 bits, most with channels-last, where torch's group norm turns the image round and back.
    Refuses when: the denoiser is no UNet2DConditionModel (or the VAE no AutoencoderKL) of SiLU blocks with an added time
    embedding, or it is compiled or exported already.
    What it costs: tier exact, to the last bits: computed in float32, rounded once. On other devices torch computes the same.
    References: Group Normalization arXiv 1803.08494; Triton.
    """

    name = "fuse-group-norm"
    family = Family.KERNELS
    tier = Tier.EXACT
    examples = (
        Example("fuse-group-norm", expect='diffusion.transform "fuse_group_norm"'),
        Example("channels-last,fuse-group-norm{part=vae}", expect='diffusion.transform "fuse_group_norm"'),
        Example("fuse-group-norm", refusal="PixArtTransformer2DModel has no blocks of this kind", model="transformer"),
        Example("export,fuse-group-norm", refusal="an engine cannot hold our kernels"),
    )
    before = ("family:compilation", "compile-vae")
    one_of = "normed-images"
    devices = ("cuda",)
    packages = {"triton": "cuda"}
    excludes = {"export": "an engine cannot hold our kernels"}

    part: Literal["denoiser", "vae"] = "denoiser"

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        yield cls()
        yield cls(part="vae")

    def refuse(self, module: ModuleOp) -> Refusal | None:
        if self.part == "vae" and "vae" not in components(module):
            return Refusal("there is no VAE", "@pipeline", "wrong-kind")
        for component in [components(module)["vae"]] if self.part == "vae" else denoisers_of(module):
            where, name = f"@{component.sym_name.data}", component.class_name.data.rpartition(".")[2]
            if name not in ("AutoencoderKL", "UNet2DConditionModel"):
                return Refusal(f"{name} has no blocks of this kind", where, "wrong-kind")
            told = component.config.get("act_fn", "silu"), component.config.get("resnet_time_scale_shift", "default")
            if told[0] not in ("silu", "swish") or told[1] != "default":
                return Refusal(f"its blocks activate by {told[0]} and take the time by {told[1]}", where, "wrong-kind")
        return None

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for component in [components(op)["vae"]] if self.part == "vae" else denoisers_of(op):
            component.add_transform("fuse_group_norm", {}, self.name)
