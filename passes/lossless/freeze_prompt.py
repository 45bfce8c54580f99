"""Do once a request what cross-attention makes of the prompt, and leave out what comes to a constant."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import denoiser_of
from diffopt.passes.base import DiffusionPass, Example, Family, Refusal, Tier

CLASSES = ("diffusers.UNet2DConditionModel", "diffusers.PixArtTransformer2DModel")


@dataclass(frozen=True)
class FreezePrompt(DiffusionPass):
    """Do once a request what cross-attention makes of the prompt, and leave out what comes to a constant.

    What it does: projects the prompt to keys and values before the first step of a captured loop; cuts padding off that is
    masked away; and where all values that count are one, as for SDXL's unconditional half of zeros or an empty prompt of
    one token, puts that value in place of query, attention and output projection.
    When it helps: with guidance and no negative prompt, half of all cross-attention goes; where prompts are padded to
    hundreds of tokens and masked, most of the rest does.
    Refuses when: the class is not known to take the prompt in by plain cross-attention, or its prompt's part is hoisted
    another way.
    What it costs: tier exact, to the last bits. It acts in captured steps alone: capture-step must follow.
    Measured on an H200 (docs/gpu.md) only along with capture-step and fused kernels, on PixArt-Σ: 1.07 times stock torch.compile.
    References: none; softmax over equal values.
    """

    name = "freeze-prompt"
    family = Family.LOSSLESS
    tier = Tier.EXACT
    examples = (
        Example("freeze-prompt", expect='diffusion.transform "freeze_prompt"'),
        Example("freeze-prompt", refusal="it is not known how", model="flux"),
        Example("freeze-prompt,fuse-qkv", refusal="fuse-qkv must come before freeze-prompt"),
    )
    after = ("fuse-qkv", "family:quantization")
    before = ("capture-step",)
    one_of = "prompt-projections"
    excludes = {
        "hoist-cross-attention": "both keep what is made of the prompt",
        "compile": "it acts in captured steps alone",
        "compile-regional": "it acts in captured steps alone",
        "export": "it acts in captured steps alone",
        "gate-cross-attention": "both take the place of cross-attention",
    }

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        yield cls()

    def refuse(self, module: ModuleOp) -> Refusal | None:
        denoiser = denoiser_of(module)
        where = f"@{denoiser.sym_name.data}"
        if denoiser.class_name.data not in CLASSES or denoiser.config.get("encoder_hid_dim_type") is not None:
            return Refusal(f"it is not known how {denoiser.class_name.data} takes its prompt in", where, "wrong-kind")
        return None

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        denoiser_of(op).add_transform("freeze_prompt", {}, self.name)
