"""DIFF037: a negative prompt without guidance."""

from __future__ import annotations

import ast

from diffopt.doctor import rule
from diffopt.doctor.installed import ancestry


class NegativePromptIgnored(rule.Rule):
    """Find a negative prompt in a call that has classifier-free guidance switched off."""

    id = "DIFF037"
    severity = "warning"
    why = (
        "Guidance is what pushes an image away from the negative prompt. Without it the negative prompt is not even "
        "looked at. Pipelines with `true_cfg_scale` take that for guidance: their `guidance_scale` is another thing."
    )
    evidence = (rule.docs("api/pipelines/flux"), rule.source("pipelines/flux/pipeline_flux.py"))
    fix = "Leave the negative prompt out, or switch guidance on with a scale above 1."
    VALID = [
        """
        from diffusers import StableDiffusionPipeline
        pipe = StableDiffusionPipeline.from_pretrained("model")
        image = pipe("a cat", negative_prompt="blurry", guidance_scale=7.5).images[0]
        """,
        """
        from diffusers import FluxPipeline
        pipe = FluxPipeline.from_pretrained("model")
        image = pipe("a cat", negative_prompt="blurry", true_cfg_scale=4.0).images[0]
        """,
    ]
    INVALID = [
        rule.Invalid(
            """
            from diffusers import StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("model")
            image = pipe("a cat", negative_prompt="blurry", guidance_scale=1.0).images[0]
            """
        ),
        rule.Invalid(
            """
            from diffusers import FluxPipeline
            pipe = FluxPipeline.from_pretrained("model")
            image = pipe("a cat", negative_prompt="blurry", guidance_scale=3.5).images[0]
            """
        ),
    ]

    def check(self, facts: rule.Facts) -> None:
        for call, site in facts.calls:
            kind = facts.kind(site)
            negative = facts.keyword(call, "negative_prompt")
            if kind is None or negative is None or facts.open(call) or not facts.value(negative.value):
                continue
            name = "true_cfg_scale" if "true_cfg_scale" in kind.call else "guidance_scale"
            if name == "guidance_scale" and not self._above_one(kind.name):
                continue
            arg = facts.keyword(call, name)
            value = facts.value(arg.value) if arg is not None else kind.call.get(name)
            if isinstance(value, int | float) and value <= 1:
                what = f"`{name}` is {value}" if arg is not None else f"`{name}` is {value} by default"
                self.flag(negative, f"the negative prompt is ignored: {what}, which switches guidance off")

    def _above_one(self, class_name: str) -> bool:
        """Say whether a pipeline guides exactly where its scale is above 1."""
        for node in ancestry(class_name):
            for part in node.body:
                if isinstance(part, ast.FunctionDef) and part.name == "do_classifier_free_guidance":
                    text = ast.unparse(part)
                    return "self._guidance_scale > 1" in text and " or " not in text
        return False
