"""DIFF014: attention slicing, which slows PyTorch's own attention down."""

from __future__ import annotations

from diffopt.doctor import rule


class AttentionSlicingBesideSdpa(rule.Rule):
    """Find `enable_attention_slicing()` where PyTorch's scaled dot product attention is in use."""

    id = "DIFF014"
    severity = "warning"
    why = (
        "PyTorch 2 computes attention without the large intermediate that slicing is there to split. Slicing replaces "
        "it by a loop over heads: the documentation of the method warns of serious slow-downs. It is still advised on "
        "Apple devices, where the rule is silent."
    )
    evidence = (rule.source("pipelines/pipeline_utils.py"), rule.docs("optimization/fp16#scaled-dot-product-attention"))
    fix = "Leave the call out."
    VALID = [
        """
        from diffusers import StableDiffusionPipeline
        pipe = StableDiffusionPipeline.from_pretrained("model").to("mps")
        pipe.enable_attention_slicing()
        """,
        """
        import torch
        from diffusers import StableDiffusionPipeline
        device = "mps" if torch.backends.mps.is_available() else "cpu"
        pipe = StableDiffusionPipeline.from_pretrained("model").to(device)
        pipe.enable_attention_slicing()
        """,
    ]
    INVALID = [
        rule.Invalid(
            """
            from diffusers import StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("model").to("cpu")
            pipe.enable_attention_slicing()
            image = pipe("a cat", num_inference_steps=2).images[0]
            """,
            expected_replacement="""
            from diffusers import StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("model").to("cpu")
            image = pipe("a cat", num_inference_steps=2).images[0]
            """,
        ),
    ]

    def check(self, facts: rule.Facts) -> None:
        if facts.mentions("mps"):
            return
        for use in facts.uses:
            if use.path != ("enable_attention_slicing",):
                continue
            message = "attention slicing slows the attention of PyTorch 2 down, which needs no slicing: leave it out"
            self.flag_call(facts, use.call, message)
