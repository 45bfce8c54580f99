"""Turn on a cache that diffusers has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Self

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.description import JSON
from diffopt.ir.dialect import denoiser_of
from diffopt.passes.base import DiffusionPass, Example, Family, Refusal, Tier
from diffopt.passes.caching.schedule import refuse_schedule

BROKEN = {"first-block": ("SD3",), "taylorseer": ("PixArt",)}
"""Transformers that a cache of diffusers 0.42 fails on (a block without text states) or passes by unseen."""


@dataclass(frozen=True)
class NativeCache(DiffusionPass):
    """Turn on a cache that diffusers has.

    What it does: lets diffusers reuse all blocks but the first while that one's residual changes by less than
    `threshold` (first-block), or forecast attentions between every `interval`-th step after the `warm` first ones
    (taylorseer). The context that these caches need is opened where the pipeline opens none.
    When it helps: where a decision taken at run time beats a schedule: prompts or sizes that differ much.
    Refuses when: the denoiser is no transformer or a video's, it is cached, exported or compiled already, or this cache
    of diffusers does not work with its blocks.
    What it costs: tier traded. The decision looks at data on the host, so the whole denoiser cannot be compiled or
    exported with it: cache-blocks and forecast-features are the static kin of the two.
    References: FBCache (ParaAttention), TaylorSeer arXiv 2503.06923; diffusers.hooks 0.42.
    """

    name = "native-cache"
    family = Family.CACHING
    tier = Tier.TRADED
    examples = (
        Example("native-cache{threshold=0.1}", expect='diffusion.transform "native_cache"', model="flux"),
        Example("native-cache,cache-blocks", refusal="at most one feature-cache", model="flux"),
        Example("native-cache", refusal="is for transformers"),
    )
    one_of = "feature-cache"
    architectures = ("transformer",)
    before = ("family:compilation",)

    kind: Literal["first-block", "taylorseer"] = "first-block"
    threshold: float = 0.05
    interval: int = 3
    order: int = 1
    warm: int = 3

    def check_options(self) -> None:
        self.require(0.0 < self.threshold <= 1.0, "threshold", "above 0 and up to 1")
        self.require(2 <= self.interval <= 20, "interval", "from 2 to 20")
        self.require(0 <= self.order <= 2, "order", "from 0 to 2")
        self.require(1 <= self.warm <= 100, "warm", "from 1 to 100")

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        for threshold in (0.03, 0.05, 0.08, 0.12, 0.2):
            yield cls(threshold=threshold)
        for interval in (2, 3, 4, 5):
            yield cls(kind="taylorseer", interval=interval)

    def refuse(self, module: ModuleOp) -> Refusal | None:
        kind = denoiser_of(module).class_name.data.rpartition(".")[2]
        if any(kind.startswith(name) for name in BROKEN[self.kind]):
            return Refusal(
                f"the {self.kind} cache of diffusers does not work with {kind}", "@transformer", "wrong-kind"
            )
        built = [t.transform.data for t in denoiser_of(module).transforms if t.transform.data in ("compile", "export")]
        if built:
            return Refusal(f"{built[0]} leaves no blocks that diffusers could cache", "@transformer", "order")
        return refuse_schedule(module, (0,))

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        first: dict[str, JSON] = {"kind": self.kind, "threshold": self.threshold}
        series: dict[str, JSON] = {
            "kind": self.kind,
            "interval": self.interval,
            "order": self.order,
            "warm": self.warm,
        }
        denoiser_of(op).add_transform("native_cache", first if self.kind == "first-block" else series, self.name)
