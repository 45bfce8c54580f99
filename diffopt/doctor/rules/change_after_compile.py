"""DIFF020: a model is quantized, fused or laid out anew after it was compiled."""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from diffopt.doctor import rule
from diffopt.doctor.compiled import compilations
from diffopt.ir.script_pipelines import Site


class ChangeAfterCompile(rule.Rule):
    """Find quantization, QKV fusion and `channels_last` behind the compilation of the same model."""

    id = "DIFF020"
    severity = "warning"
    why = (
        "The compiled graph holds the layers, their types and their memory layout. A change behind it throws the graph "
        "away at the next call, or compiles a graph that was tuned for another model. Everything that changes the "
        "model comes first, in the order LoRA, fusion, quantization, layout."
    )
    evidence = (rule.docs("optimization/fp16#torchcompile"), rule.docs("optimization/speed-memory-optims"))
    fix = "Move the compilation behind the change."
    VALID = [
        """
        import torch
        from diffusers import StableDiffusionXLPipeline
        pipe = StableDiffusionXLPipeline.from_pretrained("model")
        pipe.fuse_qkv_projections()
        pipe.unet.to(memory_format=torch.channels_last)
        pipe.unet = torch.compile(pipe.unet)
        pipe.vae.to(memory_format=torch.channels_last)
        """,
    ]
    INVALID = [
        rule.Invalid(
            """
            import torch
            from diffusers import StableDiffusionXLPipeline
            pipe = StableDiffusionXLPipeline.from_pretrained("model")
            pipe.unet = torch.compile(pipe.unet)
            pipe.unet.to(memory_format=torch.channels_last)
            """
        ),
        rule.Invalid(
            """
            import torch
            from diffusers import FluxPipeline
            from torchao.quantization import Int8WeightOnlyConfig, quantize_
            pipe = FluxPipeline.from_pretrained("model")
            pipe.transformer = torch.compile(pipe.transformer)
            quantize_(pipe.transformer, Int8WeightOnlyConfig())
            """
        ),
    ]

    def check(self, facts: rule.Facts) -> None:
        changes = list(self._changes(facts))
        for compiled in compilations(facts):
            for site, part, node, what in changes:
                if site is compiled.site and part in ("", compiled.path[0]) and facts.before(compiled.node, node):
                    line = facts.script.line(compiled.node)
                    self.flag(node, f"{what} a model that line {line} has compiled: compile it afterwards")

    def _changes(self, facts: rule.Facts) -> Iterator[tuple[Site, str, cst.Call, str]]:
        for use in facts.uses:
            layout = facts.keyword(use.call, "memory_format")
            if use.path == ("fuse_qkv_projections",):
                yield use.site, "", use.call, "fuses the projections of"
            elif len(use.path) == 2 and use.path[1] == "fuse_qkv_projections":
                yield use.site, use.path[0], use.call, "fuses the projections of"
            elif len(use.path) == 2 and use.path[1] == "to" and layout is not None:
                yield use.site, use.path[0], use.call, "lays out anew"
        for call in facts.script.all(cst.Call):
            if facts.called(call) not in ("torchao.quantization.quantize_", "torchao.quantize_") or not call.args:
                continue
            model = call.args[0].value
            site = facts.site(model.value) if isinstance(model, cst.Attribute) else None
            if isinstance(model, cst.Attribute) and site is not None:
                yield site, model.attr.value, call, "quantizes"
