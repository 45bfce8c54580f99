"""Hold the text encoder's weights only while it encodes something new."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import ComponentOp, EncodeOp, components
from diffopt.passes.base import DiffusionPass, Example, Family, Refusal, Tier


@dataclass(frozen=True)
class UnloadEncoder(DiffusionPass):
    """Hold the text encoder's weights only while it encodes something new.

    What it does: lets go of each text encoder's weights when the denoiser starts, remembers up to `entries` of its answers,
    and reads the weights again from the model's folder when a prompt comes that it does not remember.
    When it helps: in memory, where the encoder is large (T5 has 9 GB of weights beside a denoiser of 24) and prompts come
    again or requests are long; the weights are read through the page cache.
    Refuses when: there is no text encoder, it has a folder or adapters of its own, or it is remembered, offloaded, compiled
    or exported.
    What it costs: tier exact, bit for bit; reading the weights for each new prompt.
    References: none needed.
    """

    name = "unload-encoder"
    family = Family.MEMORY
    tier = Tier.EXACT
    examples = (
        Example("unload-encoder", expect='diffusion.transform "unload_encoder" {entries = 64'),
        Example("unload-encoder,reuse-prompt-embeddings", refusal="cannot have both unload-encoder and reuse"),
        Example("unload-encoder", refusal="the adapter's weights would not come back", model="adapted"),
    )
    one_of = "prompt-memory"
    excludes = MappingProxyType(
        {
            "export": "an engine holds the weights",
            "fuse-pipeline": "the function holds the weights",
            "fold-negative-prompt": "it looks whether the weights are still the same, and these come and go",
            **dict.fromkeys(("offload-groups", "offload-model", "offload-sequential"), "both move the same weights"),
        }
    )

    entries: int = 64

    def check_options(self) -> None:
        self.require(1 <= self.entries <= 4096, "entries", "from 1 to 4096")

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        yield cls()

    def refuse(self, module: ModuleOp) -> Refusal | None:
        found = _encoders(module)
        if not found:
            return Refusal("there is no text encoder", "@pipeline", "wrong-kind")
        if components(module)["pipeline"].values.get("adapters"):
            return Refusal("the adapter's weights would not come back from the folder", "@pipeline", "present")
        own = [encoder for encoder in found if encoder.values.get("model")]
        if own:
            return Refusal("it was loaded from a folder of its own", f"@{own[0].sym_name.data}", "wrong-kind")
        return None

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for encoder in _encoders(op):
            encoder.add_transform("unload_encoder", {"entries": self.entries}, self.name)


def _encoders(module: ModuleOp) -> list[ComponentOp]:
    """Return the components that encode text."""
    asked = dict.fromkeys(op.component.root_reference.data for op in module.walk() if isinstance(op, EncodeOp))
    return [components(module)[name] for name in asked if name.startswith("text_encoder")]
