"""DIFF049: `.images` of a plain tuple."""

from __future__ import annotations

import libcst as cst

from diffopt.doctor import rule

OUTPUTS = ("images", "frames", "image_embeds", "audios", "videos")


class ImagesOfTuple(rule.Rule):
    """Find `.images` of a call with `return_dict=False`."""

    id = "DIFF049"
    severity = "error"
    why = "With `return_dict=False` a pipeline returns a plain tuple: `.images` raises `AttributeError`."
    evidence = (rule.source("pipelines/stable_diffusion/pipeline_stable_diffusion.py"),)
    fix = "Write `[0]`, or leave `return_dict=False` out."
    VALID = [
        """
        from diffusers import StableDiffusionPipeline
        pipe = StableDiffusionPipeline.from_pretrained("model")
        image = pipe("a cat", return_dict=False)[0][0]
        """,
    ]
    INVALID = [
        rule.Invalid(
            """
            from diffusers import StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("model")
            image = pipe("a cat", num_inference_steps=2, return_dict=False).images[0]
            """,
            expected_replacement="""
            from diffusers import StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("model")
            image = pipe("a cat", num_inference_steps=2, return_dict=False)[0][0]
            """,
        ),
    ]

    def check(self, facts: rule.Facts) -> None:
        for node in facts.script.all(cst.Attribute):
            made = node.value
            if not isinstance(made, cst.Call) or node.attr.value not in OUTPUTS:
                continue
            arg = facts.keyword(made, "return_dict")
            if arg is None or facts.value(arg.value) is not False or made not in facts.pipelines.calls:
                continue
            first = cst.SubscriptElement(cst.Index(cst.Integer("0")))
            message = f"`return_dict=False` gives a tuple, which has no `.{node.attr.value}`: write `[0]`"
            self.flag(node, message, cst.Subscript(made, [first]))
