"""DIFF003: weights are asked for as pickles."""

from __future__ import annotations

import libcst as cst

from diffopt.doctor import rule
from diffopt.doctor.edits import without_argument


class PickledWeights(rule.Rule):
    """Find `use_safetensors=False`."""

    id = "DIFF003"
    severity = "warning"
    why = (
        "Pickled weights run whatever code their author put into them, and load slower than safetensors. Without the "
        "argument, safetensors are taken where the repository has them."
    )
    evidence = (rule.docs("using-diffusers/other-formats"), rule.source("pipelines/pipeline_utils.py"))
    fix = "Leave the argument out."
    VALID = [
        """
        from diffusers import StableDiffusionPipeline
        pipe = StableDiffusionPipeline.from_pretrained("model", use_safetensors=True)
        """,
    ]
    INVALID = [
        rule.Invalid(
            """
            from diffusers import StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("model", use_safetensors=False, safety_checker=None)
            """,
            expected_replacement="""
            from diffusers import StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("model", safety_checker=None)
            """,
        ),
    ]

    def check(self, facts: rule.Facts) -> None:
        for call in facts.script.all(cst.Call):
            arg = facts.keyword(call, "use_safetensors")
            if arg is None or facts.value(arg.value) is not False:
                continue
            name = facts.called(call)
            # single models that torchao has quantized can only be kept as pickles
            if name.startswith("diffusers.") and "Pipeline" in name:
                message = "pickled weights run code of their author: leave `use_safetensors=False` out"
                self.flag(call, message, without_argument(call, arg), at=arg)
