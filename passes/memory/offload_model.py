"""Keep each component in main memory except while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import components
from diffopt.passes.base import DiffusionPass, Example, Family, Tier


@dataclass(frozen=True)
class OffloadModel(DiffusionPass):
    """Keep each component in main memory except while it runs.

    What it does: calls `enable_model_cpu_offload`: a whole component moves to the GPU when it is called, and back when the
    next one is.
    When it helps: in GPU memory, to the largest component; a request takes longer by the moves.
    Refuses when: parts are offloaded or on engines already; the target is no CUDA device.
    What it costs: tier exact; time. Not run by us: it needs CUDA.
    References: diffusers, "Reduce memory usage"; accelerate.
    """

    name = "offload-model"
    family = Family.MEMORY
    tier = Tier.EXACT
    examples = (
        Example("offload-model", expect='diffusion.transform "offload_model"'),
        Example("offload-model,offload-sequential", refusal="cannot have both offload-model and offload-sequential"),
    )
    one_of = "offload"
    devices = ("cuda",)
    on_request = True
    excludes = {"export": "an engine stays where it was built"}

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        yield from ()

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        components(op)["pipeline"].add_transform("offload_model", {}, self.name)
