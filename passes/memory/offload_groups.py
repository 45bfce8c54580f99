"""Bring groups of blocks to the GPU while they run, the next group ahead of time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Self

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.description import JSON
from diffopt.ir.dialect import components
from diffopt.passes.base import DiffusionPass, Example, Family, Tier


@dataclass(frozen=True)
class OffloadGroups(DiffusionPass):
    """Bring groups of blocks to the GPU while they run, the next group ahead of time.

    What it does: calls `enable_group_offload` for every component: `kind` says whether groups are blocks or single layers,
    `blocks` how many blocks; with `stream` the next group is copied while this one computes.
    When it helps: in GPU memory, with most of the speed where streams hide the copying.
    Refuses when: parts are offloaded, cast or on engines already; the target, or where the emitted code runs, is no CUDA device.
    What it costs: tier exact; some time, and pinned memory for streams. Not run by us: it needs CUDA.
    References: diffusers, "Group offloading".
    """

    name = "offload-groups"
    family = Family.MEMORY
    tier = Tier.EXACT
    examples = (
        Example(
            "offload-groups{blocks=2}",
            expect='diffusion.transform "offload_groups" {onload_device = "cuda", offload_type = "block_level"',
        ),
        Example("offload-groups,offload-model", refusal="cannot have both offload-groups and offload-model"),
    )
    one_of = "offload"
    devices = ("cuda",)
    on_request = True
    excludes = {
        "export": "an engine stays where it was built",
        "compile": "hooks of every group break compiled code apart",
        "cache-features": "its passes call the layers where no hook brings their weights",
    }

    kind: Literal["block", "leaf"] = "block"
    blocks: int = 1
    stream: bool = False

    def check_options(self) -> None:
        self.require(1 <= self.blocks <= 64, "blocks", "from 1 to 64")

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        yield from ()

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        arguments: dict[str, JSON] = {"onload_device": "cuda", "offload_type": f"{self.kind}_level"}
        if self.kind == "block":
            arguments["num_blocks_per_group"] = self.blocks
        if self.stream:
            arguments["use_stream"] = True
        components(op)["pipeline"].add_transform("offload_groups", arguments, self.name)
