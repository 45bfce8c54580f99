"""DIFF026: a LoRA is fused into quantized weights."""

from __future__ import annotations

import libcst as cst

from diffopt.doctor import rule


class FuseLoraAfterQuantize(rule.Rule):
    """Find `fuse_lora` after the weights were quantized with torchao."""

    id = "DIFF026"
    severity = "warning"
    why = (
        "Fusing adds the LoRA to the weights. Quantized weights must be expanded for that and rounded once more, where "
        "the format allows it at all; fused before, the sum is rounded once."
    )
    evidence = (rule.issue(10621), rule.issue(11752))
    fix = "Load and fuse the LoRA in full precision, then quantize."
    VALID = [
        """
        from diffusers import FluxPipeline
        from torchao.quantization import Int8WeightOnlyConfig, quantize_
        pipe = FluxPipeline.from_pretrained("model")
        pipe.load_lora_weights("lora")
        pipe.fuse_lora()
        quantize_(pipe.transformer, Int8WeightOnlyConfig())
        """,
    ]
    INVALID = [
        rule.Invalid(
            """
            from diffusers import FluxPipeline
            from torchao.quantization import Int8WeightOnlyConfig, quantize_
            pipe = FluxPipeline.from_pretrained("model")
            quantize_(pipe.transformer, Int8WeightOnlyConfig())
            pipe.load_lora_weights("lora")
            pipe.fuse_lora()
            """
        ),
    ]

    def check(self, facts: rule.Facts) -> None:
        for call in facts.script.all(cst.Call):
            if facts.called(call) not in ("torchao.quantization.quantize_", "torchao.quantize_") or not call.args:
                continue
            model = call.args[0].value
            site = facts.site(model.value) if isinstance(model, cst.Attribute) else None
            if not isinstance(model, cst.Attribute) or site is None:
                continue
            if model.attr.value not in ("unet", "transformer", "transformer_2"):
                continue
            for use in facts.uses_of(site, "fuse_lora"):
                if facts.before(call, use.call):
                    line = facts.script.line(call)
                    self.flag(use.call, f"fuses into weights that line {line} has quantized: fuse first, then quantize")
