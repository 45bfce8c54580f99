"""DIFF048: a size that the model cannot make."""

from __future__ import annotations

import ast
import re
from functools import cache

from diffopt.doctor import rule
from diffopt.doctor.installed import ancestry


class SizeNotDivisible(rule.Rule):
    """Find a height or width that is not a multiple of what the pipeline asks for."""

    id = "DIFF048"
    severity = "error"
    why = (
        "The latent image is smaller by a whole factor; other sizes raise `ValueError`. The factor is read off the check "
        "in the source of the pipeline."
    )
    evidence = (rule.source("pipelines/stable_diffusion/pipeline_stable_diffusion.py"),)
    fix = "Give the next multiple."
    VALID = [
        """
        from diffusers import StableDiffusionPipeline
        pipe = StableDiffusionPipeline.from_pretrained("model")
        image = pipe("a cat", height=512, width=768).images[0]
        """,
    ]
    INVALID = [
        rule.Invalid(
            """
            from diffusers import StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("model")
            image = pipe("a cat", height=540, width=960).images[0]
            """
        ),
    ]

    def check(self, facts: rule.Facts) -> None:
        for call, site in facts.calls:
            kind = facts.kind(site)
            factor = _factor(kind.name) if kind is not None else 1
            for name in ("height", "width"):
                arg = facts.keyword(call, name)
                value = facts.value(arg.value) if arg is not None else None
                if arg is not None and isinstance(value, int) and value % factor:
                    below, above = value // factor * factor, (value // factor + 1) * factor
                    message = f"{name} {value} is not a multiple of {factor}: give {below or above} or {above}"
                    self.flag(arg, message)


@cache
def _factor(class_name: str) -> int:
    """Return what a pipeline raises for if the size is no multiple of it; 1 where the source names no number."""
    for node in ancestry(class_name):
        for part in node.body:
            if not isinstance(part, ast.FunctionDef) or part.name != "check_inputs":
                continue
            for test in ast.walk(part):
                if not isinstance(test, ast.If) or not isinstance(test.body[0], ast.Raise):
                    continue
                match = re.fullmatch(r"height % (\d+) != 0 or width % \1 != 0", ast.unparse(test.test))
                if match is not None:
                    return int(match[1])
            return 1
    return 1
