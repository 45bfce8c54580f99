"""Split the sequence of one request over several GPUs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, Self

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import denoisers_of
from diffopt.passes.base import DiffusionPass, Example, Family, Refusal, Tier
from diffopt.passes.denoiser_classes import SPLITS_SEQUENCES


@dataclass(frozen=True)
class ContextParallel(DiffusionPass):
    """Split the sequence of one request over several GPUs.

    What it does: calls `enable_parallelism` with a `ContextParallelConfig`: every GPU holds the weights and a part of the
    sequence; attention exchanges heads (`ulysses`) or passes keys and values round (`ring`). Emitted only when more than one
    GPU is declared, as `context-parallel{gpus=2}`; the code is then started by torchrun, once for each.
    When it helps: in latency, with long sequences (large images, video) and fast links between the GPUs.
    Refuses when: not more than one GPU is declared, the denoiser has no plan for it in diffusers, its heads do not divide, or
    it is cached, compiled or exported; the emitted code, where there are not as many processes and GPUs.
    What it costs: tier exact but for the order of sums. Not run by us: it needs two GPUs.
    References: DeepSpeed Ulysses arXiv 2309.14509; Ring Attention arXiv 2310.01889; diffusers, "Distributed inference".
    """

    name = "context-parallel"
    family = Family.DISTRIBUTED
    tier = Tier.EXACT
    examples = (
        Example("context-parallel{gpus=2}", expect='diffusion.transform "context_parallel" {gpus = 2', model="flux"),
        Example("context-parallel", refusal="declare more than one GPU", model="flux"),
        Example("context-parallel{gpus=2}", refusal="is for transformers"),
        Example("context-parallel{gpus=2}", refusal="has no plan for it in diffusers", model="transformer"),
    )
    before = ("family:compilation",)
    one_of = "parallelism"
    architectures = ("transformer",)
    devices = ("cuda",)
    on_request = True
    excludes = MappingProxyType(
        {
            **dict.fromkeys(("offload-groups", "offload-model", "offload-sequential"), "each GPU holds all weights"),
            "export": "an engine runs on one device",
        }
    )

    gpus: int = 1
    kind: Literal["ulysses", "ring"] = "ulysses"

    def check_options(self) -> None:
        self.require(1 <= self.gpus <= 64, "gpus", "from 1 to 64")

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        yield from ()

    def refuse(self, module: ModuleOp) -> Refusal | None:
        if self.gpus < 2:
            return Refusal("declare more than one GPU: context-parallel{gpus=2}", "@pipeline", "asked-for")
        for denoiser in denoisers_of(module):
            where, kind = f"@{denoiser.sym_name.data}", denoiser.class_name.data.removeprefix("diffusers.")
            if kind not in SPLITS_SEQUENCES:
                return Refusal(f"{kind} has no plan for it in diffusers", where, "wrong-kind")
            heads = denoiser.config.get("num_attention_heads")
            if self.kind == "ulysses" and isinstance(heads, int) and heads % self.gpus:
                return Refusal(f"{heads} heads do not divide over {self.gpus} GPUs: take kind=ring", where, "heads")
        return None

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for denoiser in denoisers_of(op):
            denoiser.add_transform("context_parallel", {"gpus": self.gpus, "kind": self.kind}, self.name)
