"""Fold low-rank adapters into the weights they adapt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.description import JSON
from diffopt.ir.dialect import components, denoiser_of
from diffopt.passes.base import DiffusionPass, Example, Family, Refusal, Tier


@dataclass(frozen=True)
class FuseLora(DiffusionPass):
    """Fold low-rank adapters into the weights they adapt.

    What it does: adds each loaded LoRA, at its strength, to the weights it adapts, and takes its two small layers out:
    `fuse_lora` and `unload_lora_weights` of diffusers.
    When it helps: always in time, as an adapted layer is three layers; it goes ahead of quantization and engines, which
    otherwise see the small layers too.
    Refuses when: no adapter is loaded, it is folded in already, or the weights are quantized, compiled or exported.
    What it costs: tier exact but for rounding in the weights; the adapter can no longer be switched.
    References: LoRA arXiv 2106.09685; diffusers, "Merge LoRAs".
    """

    name = "fuse-lora"
    family = Family.LOSSLESS
    tier = Tier.EXACT
    examples = (
        Example("fuse-lora", expect='diffusion.transform "fuse_lora"', model="adapted"),
        Example("fuse-lora", refusal="no LoRA is loaded"),
        Example("quantize,fuse-lora", refusal="fuse-lora must come before quantize", model="adapted"),
    )
    before = ("family:quantization", "family:compilation", "fuse-qkv", "hoist-cross-attention", "cast-layerwise")
    one_of = "folded-adapters"
    packages = MappingProxyType({"peft": "lora"})

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        if _adapters(module):
            yield cls()

    def refuse(self, module: ModuleOp) -> Refusal | None:
        found = _adapters(module)
        if not found:
            return Refusal("no LoRA is loaded", "@pipeline", "wrong-kind")
        fused = [adapter for adapter in found if adapter.get("fused")]
        return Refusal("the source folds its LoRA in already", "@pipeline", "present") if fused else None

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        denoiser_of(op).add_transform("fuse_lora", {}, self.name)


def _adapters(module: ModuleOp) -> list[dict[str, JSON]]:
    """Return the LoRAs that the pipeline loads."""
    listed = components(module)["pipeline"].values.get("adapters")
    found = listed if isinstance(listed, list) else []
    return [item for item in found if isinstance(item, dict) and item.get("kind") == "lora"]
