"""DIFF046: a stand-in for the safety checker that says one word for all images."""

from __future__ import annotations

import libcst as cst

from diffopt.doctor import rule


class SafetyCheckerReturnsBool(rule.Rule):
    """Find `pipe.safety_checker = lambda images, **kwargs: (images, False)`."""

    id = "DIFF046"
    severity = "error"
    why = (
        "The pipeline goes through the second value image by image; a single `False` cannot be gone through, and the "
        "call raises `TypeError`. A pipeline runs without a safety checker, too."
    )
    evidence = (rule.source("pipelines/stable_diffusion/pipeline_stable_diffusion.py"),)
    fix = "Write `pipe.safety_checker = None`, or leave the checker in."
    VALID = [
        """
        from diffusers import StableDiffusionPipeline
        pipe = StableDiffusionPipeline.from_pretrained("model")
        pipe.safety_checker = lambda images, **kwargs: (images, [False] * len(images))
        """,
    ]
    INVALID = [
        rule.Invalid(
            """
            from diffusers import StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("model")
            pipe.safety_checker = lambda images, **kwargs: (images, False)
            image = pipe("a cat", num_inference_steps=2).images[0]
            """,
            expected_replacement="""
            from diffusers import StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("model")
            pipe.safety_checker = None
            image = pipe("a cat", num_inference_steps=2).images[0]
            """,
        ),
    ]

    def check(self, facts: rule.Facts) -> None:
        for change in facts.changes:
            made = change.value
            if change.path != ("safety_checker",) or not isinstance(made, cst.Lambda):
                continue
            body = made.body
            if isinstance(body, cst.Tuple) and len(body.elements) == 2 and facts.value(body.elements[1].value) is False:
                message = "the pipeline needs one answer an image here: write `safety_checker = None`"
                self.flag(made, message, cst.Name("None"))
