"""Open the context that the caches of diffusers need, where the pipeline does not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import denoiser_of
from diffopt.passes.base import DiffusionPass, Example, Family, Refusal, Tier


@dataclass(frozen=True)
class OpenCacheContext(DiffusionPass):
    """Open the context that the caches of diffusers need, where the pipeline does not.

    What it does: names every call of the denoiser for the caches that the source turns on by `enable_cache`, and drops
    what they keep at both ends of a request. 102 of the 150 pipelines of diffusers 0.42 that ask a transformer open no
    context, so that FBCache, MagCache and TaylorSeer fail there with "No cache context is set".
    When it helps: with a source that turns such a cache on; native-cache does it by itself.
    Refuses when: the denoiser is no transformer, or its context is opened already.
    What it costs: nothing; exact.
    References: diffusers issues 12012, 12760, 14037.
    """

    name = "open-cache-context"
    family = Family.CACHING
    tier = Tier.EXACT
    examples = (
        Example("open-cache-context", expect='diffusion.transform "open_cache_context"', model="flow"),
        Example("open-cache-context,native-cache", refusal="native-cache opens it itself", model="flow"),
        Example("open-cache-context,open-cache-context", refusal="opened already", model="flow"),
    )
    architectures = ("transformer",)
    before = ("family:compilation",)
    excludes = {"native-cache": "native-cache opens it itself"}

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        yield cls()

    def refuse(self, module: ModuleOp) -> Refusal | None:
        transforms = denoiser_of(module).transforms
        if any(transform.transform.data == "open_cache_context" for transform in transforms):
            return Refusal("the context is opened already", "@transformer", "one-context")
        return None

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        denoiser_of(op).add_transform("open_cache_context", {}, self.name)
