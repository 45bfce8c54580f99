"""DIFF040: a class that diffusers has deprecated."""

from __future__ import annotations

import libcst as cst

from diffopt.doctor import rule
from diffopt.doctor.deprecations import deprecations


class DeprecatedClass(rule.Rule):
    """Find classes that the installed diffusers warns of when they are made."""

    id = "DIFF040"
    severity = "warning"
    why = (
        "A deprecated class is taken out by a later version, and gets no fixes until then. Which ones is read off the "
        "`deprecate(...)` calls and the `DeprecatedPipelineMixin` of the installed diffusers."
    )
    evidence = (rule.source("utils/deprecation_utils.py"), rule.docs("api/pipelines/overview"))
    fix = "Use what the message of diffusers names."
    VALID = [
        """
        from diffusers import StableDiffusionPipeline
        pipe = StableDiffusionPipeline.from_pretrained("model")
        """,
    ]
    INVALID = [
        rule.Invalid(
            """
            from diffusers import StableDiffusionPanoramaPipeline
            pipe = StableDiffusionPanoramaPipeline.from_pretrained("model")
            """
        ),
        rule.Invalid(
            """
            from diffusers import QuantoConfig
            config = QuantoConfig(weights_dtype="int8")
            """
        ),
    ]

    def check(self, facts: rule.Facts) -> None:
        for call in facts.script.all(cst.Call):
            name = facts.called(call)
            parts = (
                [part for part in name.split(".")[1:] if part[:1].isupper()] if name.startswith("diffusers.") else []
            )
            if not parts or name.split(".")[-1] not in (parts[-1], "from_pretrained", "from_single_file", "from_pipe"):
                continue
            for found in deprecations(parts[-1]):
                if not found.method and not found.argument:
                    self.flag(call.func, found.message)
