"""DIFF035: guidance on a model that was distilled to do without."""

from __future__ import annotations

import libcst as cst

from diffopt.doctor import rule
from diffopt.doctor.distilled import DISTILLED
from diffopt.doctor.edits import with_keyword
from diffopt.doctor.facts import UNKNOWN


class GuidanceOnDistilled(rule.Rule):
    """Find guidance on a model that was distilled to do without, given or by the default of the pipeline."""

    id = "DIFF035"
    severity = "error"
    why = (
        "Such a model gives its best image without guidance. With it every step runs the model twice, and the image is "
        "over-saturated. The default of the pipeline's class is meant for the model it was distilled from."
    )
    evidence = (rule.docs("api/pipelines/stable_diffusion/sdxl_turbo"), rule.docs("api/pipelines/z_image"))
    fix = "Write `guidance_scale=0.0`."
    VALID = [
        """
        from diffusers import StableDiffusionXLPipeline
        pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/sdxl-turbo")
        image = pipe("a cat", num_inference_steps=1, guidance_scale=0.0).images[0]
        """,
        """
        from diffusers import StableDiffusionXLPipeline
        pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0")
        image = pipe("a cat").images[0]
        """,
    ]
    INVALID = [
        rule.Invalid(
            """
            from diffusers import StableDiffusionXLPipeline
            pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/sdxl-turbo")
            image = pipe("a cat", num_inference_steps=1, guidance_scale=7.5).images[0]
            """,
            expected_replacement="""
            from diffusers import StableDiffusionXLPipeline
            pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/sdxl-turbo")
            image = pipe("a cat", num_inference_steps=1, guidance_scale=0.0).images[0]
            """,
        ),
        rule.Invalid(
            """
            from diffusers import StableDiffusionXLPipeline
            pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/sdxl-turbo")
            image = pipe(
                "a cat",
                num_inference_steps=1,
            ).images[0]
            """,
            expected_replacement="""
            from diffusers import StableDiffusionXLPipeline
            pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/sdxl-turbo")
            image = pipe(
                "a cat",
                num_inference_steps=1,
                guidance_scale=0.0,
            ).images[0]
            """,
        ),
    ]

    def check(self, facts: rule.Facts) -> None:
        for call, site in facts.calls:
            model = DISTILLED.get(facts.model(site))
            if model is None or not model.guided or facts.open(call) or facts.changed(site):
                continue
            arg = facts.keyword(call, "guidance_scale")
            kind = facts.kind(site)
            default = kind.call.get("guidance_scale") if kind is not None else UNKNOWN
            value = facts.value(arg.value) if arg is not None else default
            if not isinstance(value, int | float) or value <= 1:
                continue
            what = "" if arg is not None else f" (the default of `{site.pipeline_class.rpartition('.')[2]}` is {value})"
            message = f"{facts.model(site)} is distilled to do without guidance{what}: write `guidance_scale=0.0`"
            constant = arg is None or isinstance(arg.value, cst.Integer | cst.Float)
            self.flag(call, message, with_keyword(call, "guidance_scale", "0.0") if constant else None, at=arg or call)
