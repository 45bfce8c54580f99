"""Encode each prompt once, and the negative prompt once for all requests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import ComponentOp, components
from diffopt.passes.base import DiffusionPass, Example, Family, Refusal, Tier


@dataclass(frozen=True)
class ReusePromptEmbeddings(DiffusionPass):
    """Encode each prompt once, and the negative prompt once for all requests.

    What it does: remembers what each text encoder answered, by token ids, every other argument and the weights (adapters
    and their scales included); up to `entries` answers, the longest unused goes first. It goes round engines too.
    When it helps: in every request after the first, for the negative prompt; for prompts that come again, all of them.
    Refuses when: there is no text encoder, or the whole pipeline is one engine, which encodes by itself.
    What it costs: tier exact, bit for bit; the memory of the embeddings.
    References: none needed.
    """

    name = "reuse-prompt-embeddings"
    family = Family.LOSSLESS
    tier = Tier.EXACT
    examples = (
        Example("reuse-prompt-embeddings", expect='diffusion.transform "reuse_prompt_embeddings" {entries = 64'),
        Example("reuse-prompt-embeddings,export{scope=pipeline}", refusal="inside a whole-pipeline engine"),
    )
    after = ("family:quantization", "family:compilation")
    one_of = "prompt-memory"
    excludes = {"offload-sequential": "the encoder's weights are never where they were, so nothing is recognised"}

    entries: int = 64

    def check_options(self) -> None:
        self.require(1 <= self.entries <= 100_000, "entries", "from 1 to 100000")

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        yield cls()

    def refuse(self, module: ModuleOp) -> Refusal | None:
        return None if _encoders(module) else Refusal("there is no text encoder", "@pipeline", "wrong-kind")

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for encoder in _encoders(op):
            encoder.add_transform("reuse_prompt_embeddings", {"entries": self.entries}, self.name)


def _encoders(module: ModuleOp) -> list[ComponentOp]:
    return [component for name, component in components(module).items() if name.startswith("text_encoder")]
