"""Fuse encoding, loop and decoding into one function."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import components
from diffopt.passes.base import DiffusionPass, Example, Family, Refusal, Tier
from diffopt.passes.folding import why_not_folded


@dataclass(frozen=True)
class FusePipeline(DiffusionPass):
    """Fuse encoding, loop and decoding into one function.

    What it does: traces one request into a graph from token ids and noise to the picture, with the loop unrolled, all that
    does not depend on the prompt folded into constants, and dead code removed. What repeats (the denoiser's full and
    reduced calls, text encoder, decoder) is outlined: the graph calls it, whoever runs it, torch or an engine made before.
    The pipeline's own Python runs no more.
    When it helps: where that Python costs as much as the network: small networks, few steps, engines. It is what export of
    the whole pipeline hands to its engine, which also inlines every call.
    Refuses when: the pipeline is of another class than those whose calls were seen to become one program, or not in float32,
    or its parts are compiled, cast, offloaded or remembered.
    What it costs: tier exact to the last bits; one run at loading; for one number of steps, one guidance and one size, all
    else runs as before.
    References: function outlining and inlining, as in any compiler; torch.fx.
    """

    name = "fuse-pipeline"
    family = Family.STRUCTURE
    tier = Tier.EXACT
    examples = (
        Example("fuse-pipeline", expect='diffusion.transform "fuse_pipeline"'),
        Example("export{scope=pipeline},fuse-pipeline", refusal="export"),
        Example("fuse-pipeline", expect='diffusion.transform "fuse_pipeline"', model="transformer"),
        Example("fuse-pipeline", refusal="not of FluxPipeline yet", model="flux"),
    )
    one_of = "whole-pipeline"
    after = ("family:quantization", "family:lossless", "family:vae", "family:compilation")
    excludes = MappingProxyType(
        {
            name: reason
            for names, reason in (
                (("compile", "compile-regional", "compile-vae"), "compiled code is not traced through"),
                (("half-precision", "cast-layerwise"), "the function is made of float32 weights"),
                (("offload-groups", "offload-model", "offload-sequential"), "the function calls parts where they are"),
                (("reuse-prompt-embeddings", "hoist-cross-attention"), "what it remembers is a call of the pipeline"),
                (("capture-step",), "captured steps are a call of the pipeline, and the function is none"),
                (("fold-negative-prompt",), "the function has the negative prompt as a constant already"),
            )
            for name in names
        }
    )

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        yield cls()

    def refuse(self, module: ModuleOp) -> Refusal | None:
        pipeline = components(module)["pipeline"]
        if why := why_not_folded(module):
            return Refusal(why, "@pipeline", "wrong-kind")
        if pipeline.values.get("dtype") != "float32":
            return Refusal("the function is made of float32 weights alone", "@pipeline", "dtype")
        done = [t.transform.data for t in pipeline.transforms if t.transform.data in ("export", "fuse_pipeline")]
        return Refusal(f"the call is one function already, by {done[0]}", "@pipeline", "one-of") if done else None

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        components(op)["pipeline"].add_transform("fuse_pipeline", {}, self.name)
