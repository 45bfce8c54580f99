"""DIFF036: many steps on a model that was distilled to few."""

from __future__ import annotations

import libcst as cst

from diffopt.doctor import rule
from diffopt.doctor.distilled import DISTILLED, MANY
from diffopt.doctor.edits import with_keyword


class StepsOnDistilled(rule.Rule):
    """Find a number of steps that a distilled model has no use for, given or by the default of the pipeline."""

    id = "DIFF036"
    severity = "warning"
    why = (
        "The model was trained to finish in a few steps. More of them take longer, and make the image no better or "
        "spoil it."
    )
    evidence = (rule.docs("api/pipelines/stable_diffusion/sdxl_turbo"), rule.docs("api/pipelines/flux"))
    fix = "Give the number of steps that the documentation of the model advises."
    VALID = [
        """
        from diffusers import FluxPipeline
        pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-schnell")
        image = pipe("a cat", num_inference_steps=4).images[0]
        """,
        """
        from diffusers import StableDiffusionXLImg2ImgPipeline
        pipe = StableDiffusionXLImg2ImgPipeline.from_pretrained("stabilityai/sdxl-turbo")
        image = pipe("a cat", image=None, strength=0.1, num_inference_steps=10, guidance_scale=0.0).images[0]
        """,
    ]
    INVALID = [
        rule.Invalid(
            """
            from diffusers import FluxPipeline
            pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-schnell")
            image = pipe("a cat", num_inference_steps=50).images[0]
            """,
            expected_replacement="""
            from diffusers import FluxPipeline
            pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-schnell")
            image = pipe("a cat", num_inference_steps=4).images[0]
            """,
        ),
        rule.Invalid(
            """
            from diffusers import FluxPipeline
            pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-schnell")
            image = pipe("a cat").images[0]
            """,
            expected_replacement="""
            from diffusers import FluxPipeline
            pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-schnell")
            image = pipe("a cat", num_inference_steps=4).images[0]
            """,
        ),
    ]

    def check(self, facts: rule.Facts) -> None:
        for call, site in facts.calls:
            model, kind = DISTILLED.get(facts.model(site)), facts.kind(site)
            if model is None or facts.open(call) or facts.changed(site) or facts.keyword(call, "strength"):
                continue  # of an image that is only partly denoised, a part of the steps is run
            if any(facts.keyword(call, name) for name in ("timesteps", "sigmas")):
                continue
            if kind is not None and "strength" in kind.call:
                continue
            arg = facts.keyword(call, "num_inference_steps")
            default = kind.call.get("num_inference_steps") if kind is not None else None
            value = facts.value(arg.value) if arg is not None else default
            if not isinstance(value, int) or value < MANY * model.steps:
                continue
            what = "" if arg is not None else " (the default)"
            message = f"{facts.model(site)} is distilled to {model.steps} steps and less, this takes {value}{what}"
            constant = arg is None or isinstance(arg.value, cst.Integer)
            new = with_keyword(call, "num_inference_steps", str(model.steps)) if constant else None
            self.flag(call, message, new, at=arg or call)
