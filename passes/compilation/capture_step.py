"""Capture a step of the loop, denoiser, guidance and scheduler together, and replay it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Self

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import components, denoiser_of, denoisers_of, loops, stages
from diffopt.passes.base import DiffusionPass, Example, Family, Refusal, Tier, unlike_torch
from diffopt.passes.steps.solvers import asks_twice


@dataclass(frozen=True)
class CaptureStep(DiffusionPass):
    """Capture a step of the loop, denoiser, guidance and scheduler together, and replay it.

    What it does: asks the scheduler with unit vectors what it does to latents, and runs the loop as a few CUDA graphs, one
    a kind of step (full, shallow, conditional half alone), over memory that stays; the scheduler's numbers lie in a table
    on the device, so nothing is read back. The denoiser in it is compiled by `mode`. On other devices the same loop runs
    uncaptured.
    When it helps: on a GPU; with freeze-prompt, which only such a loop can follow.
    Refuses when: the denoiser is compiled or exported already, several denoisers or stages share the call, the
    halves of guidance are taken apart, the attention asked for takes no float32, or the scheduler asks the denoiser
    twice a step.
    What it costs: tier exact, to the last bits. The first request of each schedule and size is an ordinary one. Schedulers
    that draw noise or look back further than three steps run as they did, and the witness says so.
    Measured on an H200 (docs/gpu.md): with regional compilation and fused kernels 1.07 times stock torch.compile on PixArt-Σ and
    1.01 times on FLUX.1; one launch a step, and the host waits for nothing between them.
    References: CUDA graphs; torch.compile, `max-autotune`.
    """

    name = "capture-step"
    family = Family.COMPILATION
    tier = Tier.EXACT
    examples = (
        Example(
            "capture-step", expect='diffusion.transform "capture_step" {mode = "max-autotune", attention = "auto"}'
        ),
        Example("capture-step,compile", refusal="cannot have both capture-step and compile"),
        Example("capture-step,quantize", refusal="quantize must come before capture-step"),
        Example("reduce-steps{solver=heun},capture-step", refusal="asks the denoiser twice a step"),
    )
    after = ("family:quantization", "fuse-qkv", "channels-last", "freeze-prompt")
    one_of = "engine"
    excludes = {
        "hoist-cross-attention": "captured steps cannot ask whether the prompt is another",
        "constant-embeddings": "captured steps cannot look a timestep up",
        "offload-model": "captured steps need all weights where they are",
        "offload-sequential": "captured steps need all weights where they are",
        "offload-groups": "captured steps need all weights where they are",
    }

    mode: Literal["eager", "default", "max-autotune", "regional", "regional-tuned"] = "max-autotune"
    attention: Literal["auto", "cudnn", "flash", "efficient"] = "auto"

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        yield cls(mode="regional")
        yield cls(mode="max-autotune")
        yield cls(mode="max-autotune", attention="cudnn")

    def refuse(self, module: ModuleOp) -> Refusal | None:
        if len(denoisers_of(module)) > 1 or len(stages(module)) > 1:
            return Refusal("several denoisers or stages share the call", "diffusion.denoise", "wrong-kind")
        for guide in (loop.guide for loop in loops(module) if loop.guide is not None):
            if guide.fresh_steps is not None or guide.apart is not None:
                return Refusal("the halves of guidance are taken apart", "diffusion.guide", "in-turn")
        dtype = str(components(module)["pipeline"].values.get("dtype"))
        if self.attention in ("cudnn", "flash") and dtype == "float32":
            return Refusal(f"{self.attention} takes no float32, and the pipeline is in it", "", "dtype")
        return asks_twice(module) or unlike_torch(module)

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        denoiser_of(op).add_transform("capture_step", {"mode": self.mode, "attention": self.attention}, self.name)
