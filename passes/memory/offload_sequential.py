"""Bring each layer to the GPU only while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import components
from diffopt.passes.base import DiffusionPass, Example, Family, Tier


@dataclass(frozen=True)
class OffloadSequential(DiffusionPass):
    """Bring each layer to the GPU only while it runs.

    What it does: calls `enable_sequential_cpu_offload`: weights rest in main memory, and move layer by layer.
    When it helps: in GPU memory, to the largest layer; it is very slow.
    Refuses when: parts are offloaded, quantized, compiled or on engines already; the target is no
    CUDA device.
    What it costs: tier exact; much time. Not run by us: it needs CUDA.
    References: diffusers, "Reduce memory usage"; accelerate.
    """

    name = "offload-sequential"
    family = Family.MEMORY
    tier = Tier.EXACT
    examples = (
        Example("offload-sequential", expect='diffusion.transform "offload_sequential"'),
        Example("export,offload-sequential", refusal="an engine stays where it was built"),
    )
    one_of = "offload"
    devices = ("cuda",)
    on_request = True
    excludes = {
        "export": "an engine stays where it was built",
        "compile": "hooks of every layer break compiled code apart",
        "compile-regional": "hooks of every layer break compiled code apart",
        "compile-vae": "hooks of every layer break compiled code apart",
        "quantize": "8-bit layers are no layers that its hooks know",
        "cast-layerwise": "both put hooks round the same layers",
        "half-precision": "the door that casts asks for weights that are not there",
        "constant-embeddings": "the weights are never where they were, so nothing is recognised",
        "cache-features": "its passes call the layers where no hook brings their weights",
    }

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        yield from ()

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        components(op)["pipeline"].add_transform("offload_sequential", {}, self.name)
