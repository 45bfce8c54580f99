"""DIFF044: a name that the installed diffusers does not have."""

from __future__ import annotations

import difflib

from diffopt.doctor import rule
from diffopt.doctor.imports import missing_names
from diffopt.doctor.installed import names_of


class RemovedFromDiffusers(rule.Rule):
    """Find imports of names that the installed diffusers does not have."""

    id = "DIFF044"
    severity = "error"
    why = "The import raises `ImportError`. What there is, is read off the installed diffusers."
    evidence = (rule.docs("api/pipelines/overview"),)
    fix = "Import what took its place."
    VALID = [
        """
        from diffusers import StableDiffusionPipeline
        from diffusers.utils import load_image
        """,
    ]
    INVALID = [
        rule.Invalid(
            """
            from diffusers import StableDiffusionPipelin
            """
        ),
        rule.Invalid(
            """
            from diffusers.models import NoSuchModel
            """
        ),
    ]

    def check(self, facts: rule.Facts) -> None:
        for alias, module, name in missing_names(facts, "diffusers"):
            near = difflib.get_close_matches(name, names_of(module) or (), 1, 0.8)
            advice = f"; is it `{near[0]}`?" if near else ""
            self.flag(alias, f"`{module}` has no `{name}`{advice}")
