"""Compute attention by another kernel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Self, get_args

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import components, denoisers_of
from diffopt.passes.base import DiffusionPass, Example, Family, Refusal, Tier
from diffopt.passes.denoiser_classes import DISPATCHES, MASKED

Backend = Literal["_native_math", "_native_efficient", "_native_flash", "_native_cudnn", "flex"]


@dataclass(frozen=True)
class AttentionBackend(DiffusionPass):
    """Compute attention by another kernel.

    What it does: calls `set_attention_backend`: `_native_math` multiplies matrices plainly, `_native_efficient`,
    `_native_flash` and `_native_cudnn` pick a kernel of PyTorch's, `flex` compiles one.
    When it helps: where PyTorch's own choice is not the fastest, which only a measurement says.
    Refuses when: the denoiser does not dispatch its attention (UNets), is compiled or exported already, or the
    kernel takes no mask (flash) where the prompt is padded, no float32 (flash, cuDNN), or no heads of this size.
    What it costs: tier exact, to the last bits.
    References: diffusers, "Attention backends"; FlashAttention arXiv 2205.14135; FlexAttention arXiv 2412.05496.
    """

    name = "attention-backend"
    family = Family.ATTENTION
    tier = Tier.EXACT
    examples = (
        Example(
            "attention-backend",
            expect='diffusion.transform "attention_backend" {backend = "_native_math"}',
            model="flux",
        ),
        Example("attention-backend", refusal="is for transformers"),
        Example("attention-backend{backend=_native_flash}", refusal="takes no float32", model="flux"),
        Example("attention-backend", refusal="does not dispatch its attention", model="transformer"),
    )
    before = ("family:compilation",)
    one_of = "attention-kernel"
    architectures = ("transformer",)

    backend: Backend = "_native_math"

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        for backend in get_args(Backend):
            yield cls(backend=backend)

    def refuse(self, module: ModuleOp) -> Refusal | None:
        for denoiser in denoisers_of(module):
            where, kind = f"@{denoiser.sym_name.data}", denoiser.class_name.data.removeprefix("diffusers.")
            if kind not in DISPATCHES:
                return Refusal(f"{kind} does not dispatch its attention", where, "wrong-kind")
            dtype = str(components(module)["pipeline"].values.get("dtype"))
            if self.backend in NARROW and dtype == "float32":
                return Refusal(f"{self.backend} takes no float32, and the pipeline is in it", where, "dtype")
            if self.backend in MASKLESS and kind in MASKED:
                return Refusal(f"{self.backend} takes no mask, and {kind} masks the padding", where, "mask")
            size, most = denoiser.config.get("attention_head_dim"), LARGEST.get(self.backend, 1 << 30)
            if isinstance(size, int) and size > most:
                return Refusal(f"{self.backend} takes heads up to {most}, not {size}", where, "head-size")
        return None

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for denoiser in denoisers_of(op):
            denoiser.add_transform("attention_backend", {"backend": self.backend}, self.name)


NARROW = ("_native_flash", "_native_cudnn")
MASKLESS = ("_native_flash",)
LARGEST = {"_native_flash": 256, "_native_cudnn": 256}
