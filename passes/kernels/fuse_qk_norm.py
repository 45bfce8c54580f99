"""Norm, join and rotate queries and keys in one kernel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import denoisers_of
from diffopt.passes.base import DiffusionPass, Example, Family, Refusal, Tier


@dataclass(frozen=True)
class FuseQkNorm(DiffusionPass):
    """Norm, join and rotate queries and keys in one kernel.

    What it does: makes the queries, and the keys, of joint attention ready in one Triton kernel each: the norm of every head, text
    and image joined, rotary embedding.
    When it helps: on a GPU, for Flux: alone on an H200 2.9 times as fast as inductor's kernels for the same work. At Stable
    Diffusion 3.5's width it loses (0.87 times, docs/kernels.md), so there only on request.
    Refuses when: the denoiser is neither Flux nor Stable Diffusion 3.5, or is compiled or exported already.
    What it costs: tier exact, to the last bits: computed in float32, rounded once. On other devices torch computes the same.
    References: RoFormer arXiv 2104.09864; Root Mean Square Layer Normalization arXiv 1910.07467; Triton.
    """

    name = "fuse-qk-norm"
    family = Family.KERNELS
    tier = Tier.EXACT
    examples = (
        Example("fuse-qk-norm", expect='diffusion.transform "fuse_qk_norm"', model="flux"),
        Example("fuse-qk-norm", refusal="is for transformers"),
        Example("fuse-qk-norm", refusal="does not norm its queries", model="transformer"),
        Example("fuse-qk-norm,fuse-qkv", refusal="fuse-qkv must come before fuse-qk-norm", model="flux"),
    )
    after = ("fuse-qkv",)
    before = ("family:compilation",)
    architectures = ("transformer",)
    one_of = "queries"
    devices = ("cuda",)
    packages = {"triton": "cuda"}
    excludes = {"export": "an engine cannot hold our kernels"}

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        if all(denoiser.class_name.data.endswith("FluxTransformer2DModel") for denoiser in denoisers_of(module)):
            yield cls()

    def refuse(self, module: ModuleOp) -> Refusal | None:
        for denoiser in denoisers_of(module):
            name = denoiser.class_name.data.rpartition(".")[2]
            normed = name == "SD3Transformer2DModel" and denoiser.config.get("qk_norm") == "rms_norm"
            if name != "FluxTransformer2DModel" and not normed:
                return Refusal(f"{name} does not norm its queries so", f"@{denoiser.sym_name.data}", "wrong-kind")
        return None

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for denoiser in denoisers_of(op):
            denoiser.add_transform("fuse_qk_norm", {}, self.name)
