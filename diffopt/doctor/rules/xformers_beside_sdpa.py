"""DIFF015: xFormers where PyTorch's own attention is as good."""

from __future__ import annotations

from diffopt.doctor import rule


class XformersBesideSdpa(rule.Rule):
    """Find `enable_xformers_memory_efficient_attention()` with PyTorch 2."""

    id = "DIFF015"
    severity = "note"
    why = (
        "PyTorch 2 has the same memory-efficient attention built in and uses it by default. The call needs one more "
        "package, built for exactly this PyTorch, and replaces attention processors that were set before."
    )
    evidence = (rule.docs("optimization/fp16#scaled-dot-product-attention"), rule.docs("optimization/xformers"))
    fix = (
        'Leave the call out; where a measurement says that xFormers is faster, use `set_attention_backend("xformers")`.'
    )
    VALID = [
        """
        from diffusers import FluxPipeline
        pipe = FluxPipeline.from_pretrained("model")
        pipe.transformer.set_attention_backend("xformers")
        """,
    ]
    INVALID = [
        rule.Invalid(
            """
            from diffusers import StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("model")
            pipe.enable_xformers_memory_efficient_attention()
            image = pipe("a cat", num_inference_steps=2).images[0]
            """,
        ),
    ]

    def check(self, facts: rule.Facts) -> None:
        for use in facts.uses:
            if use.path != ("enable_xformers_memory_efficient_attention",) or use.call.args:
                continue
            message = (
                "PyTorch 2 has memory-efficient attention built in and uses it by default: xFormers needs a reason"
            )
            self.flag(use.call, message)
