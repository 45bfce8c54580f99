"""Look up the timestep's embeddings instead of computing them at every step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import denoiser_of
from diffopt.passes.base import DiffusionPass, Example, Family, Refusal, Tier


@dataclass(frozen=True)
class ConstantEmbeddings(DiffusionPass):
    """Look up the timestep's embeddings instead of computing them at every step.

    What it does: keeps what the denoiser makes of the timestep alone, by timestep and batch; after the first request of a
        schedule it is looked up. Of a UNet that is the time embedding and each residual block's projection of it, of PixArt
        the modulation of all blocks (AdaLN-single).
    When it helps: a little, with small denoisers on a processor, where each small layer costs its call; on a GPU it does
        nothing, as reading the timestep would cost more.
    Refuses when: the denoiser is no UNet2DConditionModel and no PixArt, its time embedding takes more than the timestep in
        (SDXL, Flux, large PixArt), or it is compiled or exported.
    What it costs: tier exact, bit for bit.
    References: none needed.
    """

    name = "constant-embeddings"
    family = Family.LOSSLESS
    tier = Tier.EXACT
    examples = (
        Example("constant-embeddings", expect='diffusion.transform "constant_embeddings"'),
        Example("constant-embeddings,export", refusal="an engine computes the embeddings itself"),
    )
    after = ("family:quantization",)
    one_of = "time-table"
    excludes = {
        "compile": "compiled code computes the embeddings itself",
        "compile-regional": "a compiled block computes its projection itself",
        "export": "an engine computes the embeddings itself",
    }

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        yield cls()

    def refuse(self, module: ModuleOp) -> Refusal | None:
        denoiser = denoiser_of(module)
        where = f"@{denoiser.sym_name.data}"
        kind = denoiser.class_name.data.rpartition(".")[2]
        if kind not in ("UNet2DConditionModel", "PixArtTransformer2DModel"):
            return Refusal(f"{kind} is no UNet2DConditionModel and no PixArt", where, "wrong-kind")
        mixed = [key for key in MIXED if denoiser.config.get(key) not in (None, False)]
        if kind.startswith("PixArt") and denoiser.config.get("use_additional_conditions") is None:
            # diffusers 0.42 takes the size of the image in where the configuration says nothing and the latent is of 128.
            mixed += ["use_additional_conditions"] * (denoiser.config.get("sample_size", 128) == 128)
        return Refusal(f"the time embedding depends on more than the timestep: {mixed[0]}", where) if mixed else None

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        denoiser_of(op).add_transform("constant_embeddings", {}, self.name)


MIXED = (
    "class_embed_type",
    "num_class_embeds",
    "addition_embed_type",
    "time_cond_proj_dim",
    "encoder_hid_dim_type",
    "use_additional_conditions",
)
