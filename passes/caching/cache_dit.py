"""Let cache-dit cache the blocks of a transformer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.description import JSON
from diffopt.ir.dialect import components, denoiser_of, steps_of
from diffopt.passes.base import DiffusionPass, Example, Family, Refusal, Tier
from diffopt.passes.caching.schedule import refuse_schedule

KNOWN = (
    "AnyFlow", "Allegro", "AuraFlow", "Bria", "Chroma", "ChronoEdit", "CogVideoX", "CogView", "ConsisID", "Cosmos",
    "ErnieImage", "Flux", "GlmImage", "HiDream", "HunyuanDiT", "HunyuanImage", "HunyuanVideo", "JoyImage",
    "Kandinsky5", "Krea2", "LTX", "LongCatImage", "Lumina", "Mochi", "OmniGen", "OvisImage", "PRX", "PixArt",
    "QwenImage", "Sana", "SkyReelsV2", "StableAudio", "StableDiffusion3", "VisualCloze", "Wan", "ZImage",
)  # fmt: skip
"""What the names of the pipelines begin with that cache-dit 1.5 has an adapter for."""


@dataclass(frozen=True)
class CacheDit(DiffusionPass):
    """Let cache-dit cache the blocks of a transformer.

    What it does: turns on DBCache of the package cache-dit: the `first` and `last` blocks run at every step, and the others
    are skipped while the residual of the first changes by less than `threshold`, after `warm` full steps. With `order`, what
    they gave is forecast by TaylorSeer instead of taken as it was.
    When it helps: where the decision should follow the prompt; with guidance, each half has a decision of its own.
    Refuses when: cache-dit is not installed or has no adapter for the pipeline, there are no more steps than warm
    ones, the transformer is cached, compiled or exported already, a plan of steps takes its guidance apart, or the
    call is more than one denoiser over one whole schedule.
    What it costs: tier traded. The decision looks at data on the host, at each step.
    References: cache-dit, github.com/vipshop/cache-dit; FBCache (ParaAttention); TaylorSeer arXiv 2503.06923.
    """

    name = "cache-dit"
    family = Family.CACHING
    tier = Tier.TRADED
    examples = (
        Example("cache-dit", expect='diffusion.transform "cache_dit"', model="flux"),
        Example("cache-dit,cache-blocks", refusal="at most one feature-cache", model="flux"),
        Example("cache-dit{warm=50}", refusal="50 warm steps leave none", model="flow"),
        Example("cache-dit", refusal="is for transformers"),
    )
    one_of = "feature-cache"
    excludes = MappingProxyType(
        dict.fromkeys(
            ("guidance-window", "reuse-unconditional", "split-guidance-batch"),
            "a plan of steps takes the halves of guidance apart, and what is cached is of both",
        )
        | {"export": "its decisions at run time cannot be traced into an engine"}
    )
    architectures = ("transformer",)
    before = ("family:compilation",)
    packages = MappingProxyType({"cache_dit": "caching"})

    first: int = 1
    last: int = 0
    threshold: float = 0.08
    warm: int = 4
    order: int = 0

    def check_options(self) -> None:
        self.require(1 <= self.first <= 16, "first", "from 1 to 16")
        self.require(0 <= self.last <= 16, "last", "from 0 to 16")
        self.require(0.0 < self.threshold <= 1.0, "threshold", "above 0 and up to 1")
        self.require(1 <= self.warm <= 100, "warm", "from 1 to 100")
        self.require(0 <= self.order <= 4, "order", "from 0 to 4")

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        warm = min(4, max(steps_of(module) - 1, 1))
        for threshold in (0.05, 0.08, 0.12, 0.2):
            for order in (0, 1):
                yield cls(threshold=threshold, order=order, warm=warm)

    def refuse(self, module: ModuleOp) -> Refusal | None:
        pipeline = components(module)["pipeline"].class_name.data.rpartition(".")[2]
        if not pipeline.startswith(KNOWN):
            return Refusal(f"cache-dit has no adapter for {pipeline}", "@pipeline", "wrong-kind")
        if self.warm >= steps_of(module):
            return Refusal(f"{self.warm} warm steps leave none of {steps_of(module)} to cache", "diffusion.denoise")
        built = [t.transform.data for t in denoiser_of(module).transforms if t.transform.data in ("compile", "export")]
        if built:
            return Refusal(f"{built[0]} leaves no blocks that cache-dit could skip", "@transformer", "order")
        return refuse_schedule(module, (0,))

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        arguments: dict[str, JSON] = {
            "first": self.first,
            "last": self.last,
            "threshold": self.threshold,
            "warm": self.warm,
        }
        arguments |= {"order": self.order} if self.order else {}
        denoiser_of(op).add_transform("cache_dit", arguments, self.name)
