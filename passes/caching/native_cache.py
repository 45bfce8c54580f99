"""Turn on a cache that diffusers has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, Self

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.description import JSON
from diffopt.ir.dialect import denoiser_of, steps_of
from diffopt.passes.base import DiffusionPass, Example, Family, Refusal, Tier
from diffopt.passes.caching.schedule import numbers, refuse_schedule

BROKEN: dict[str, tuple[str, ...]] = {"first-block": ("SD3",), "taylorseer": ("PixArt",), "mag": ()}
"""Transformers that a cache of diffusers 0.42 fails on (a block without text states) or passes by unseen."""


@dataclass(frozen=True)
class NativeCache(DiffusionPass):
    """Turn on a cache that diffusers has.

    What it does: lets diffusers reuse all blocks but the first while that one's residual changes by less than
    `threshold` (first-block), or forecast attentions between every `interval`-th step after the `warm` first ones
    (taylorseer), or, after the `warm` first steps, reuse the residual of all blocks up to `longest` steps in a row, while
    `ratios` of its size from step to step say that it has changed by less than `threshold` (mag). These ratios belong to
    a checkpoint and a scheduler: `python -m diffopt.bench.fit magcache MODEL` measures them in one traced run and prints
    this pass with them. The context that these caches need is opened where the pipeline opens none.
    When it helps: where a decision taken at run time beats a schedule: prompts or sizes that differ much.
    Refuses when: the denoiser is no transformer or a video's, it is cached, exported, fused or compiled already, a plan of
    steps takes its guidance apart, this cache of diffusers does not work with its blocks, or mag has no ratios, or
    ratios of another number of steps.
    What it costs: tier traded. The decision is taken on the host, so the whole denoiser cannot be compiled or
    exported with it: cache-blocks, forecast-features and cache-adaptive are the static kin of the three.
    References: FBCache (ParaAttention), TaylorSeer arXiv 2503.06923, MagCache arXiv 2506.09045; diffusers.hooks 0.42.
    """

    name = "native-cache"
    family = Family.CACHING
    tier = Tier.TRADED
    examples = (
        Example("native-cache{threshold=0.1}", expect='diffusion.transform "native_cache"', model="flux"),
        Example("native-cache,cache-blocks", refusal="at most one feature-cache", model="flux"),
        Example("native-cache{kind=mag}", refusal="needs ratios of this checkpoint", model="flux"),
        Example("native-cache", refusal="is for transformers"),
    )
    one_of = "feature-cache"
    excludes = MappingProxyType(
        dict.fromkeys(
            ("guidance-window", "reuse-unconditional", "split-guidance-batch"),
            "a plan of steps takes the halves of guidance apart, and what is cached is of both",
        )
        | dict.fromkeys(
            ("export", "fuse-pipeline"), "its decisions at run time cannot be traced into an engine or one function"
        )
    )
    architectures = ("transformer",)
    before = ("family:compilation",)

    kind: Literal["first-block", "taylorseer", "mag"] = "first-block"
    threshold: float = 0.05
    interval: int = 3
    order: int = 1
    warm: int = 3
    longest: int = 3
    ratios: str = ""

    def check_options(self) -> None:
        self.require(0.0 < self.threshold <= 1.0, "threshold", "above 0 and up to 1")
        self.require(2 <= self.interval <= 20, "interval", "from 2 to 20")
        self.require(0 <= self.order <= 2, "order", "from 0 to 2")
        self.require(1 <= self.warm <= 100, "warm", "from 1 to 100")
        self.require(1 <= self.longest <= 50, "longest", "from 1 to 50")
        self.require(numbers(self.ratios) is not None, "ratios", "numbers from 0 up, parted by commas")

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
        if self.kind == "mag" and (found := self._unlike(module)):
            return found
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
        magnitudes: dict[str, JSON] = {
            "kind": self.kind,
            "threshold": self.threshold,
            "warm": self.warm,
            "longest": self.longest,
            "ratios": [*(numbers(self.ratios) or ())],
        }
        arguments = {"first-block": first, "taylorseer": series, "mag": magnitudes}[self.kind]
        denoiser_of(op).add_transform("native_cache", arguments, self.name)

    def _unlike(self, module: ModuleOp) -> Refusal | None:
        measured, steps = len(numbers(self.ratios) or ()), steps_of(module)
        if not measured:
            return Refusal("mag needs ratios of this checkpoint: `python -m diffopt.bench.fit magcache MODEL` has them")
        if measured != steps:
            return Refusal(f"the ratios were measured for {measured} steps, and there are {steps}: measure them again")
        return None
