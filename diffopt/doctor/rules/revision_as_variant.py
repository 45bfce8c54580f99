"""DIFF005: `revision="fp16"`, a branch that has become `variant="fp16"`."""

from __future__ import annotations

import libcst as cst

from diffopt.doctor import rule


class RevisionAsVariant(rule.Rule):
    """Find `revision="fp16"`."""

    id = "DIFF005"
    severity = "warning"
    why = (
        "Weights of another precision used to be on a branch of their own; they are files beside the others now, and "
        "the branch is deprecated or gone."
    )
    evidence = (rule.source("pipelines/pipeline_utils.py"), rule.docs("using-diffusers/loading"))
    fix = 'Write `variant="fp16"`.'
    VALID = [
        """
        from diffusers import StableDiffusionPipeline
        pipe = StableDiffusionPipeline.from_pretrained("owner/model", revision="refs/pr/3")
        """,
    ]
    INVALID = [
        rule.Invalid(
            """
            import torch
            from diffusers import StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("owner/model", revision="fp16", dtype=torch.float16)
            """,
            expected_replacement="""
            import torch
            from diffusers import StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("owner/model", variant="fp16", dtype=torch.float16)
            """,
        ),
    ]

    def check(self, facts: rule.Facts) -> None:
        for call in facts.script.all(cst.Call):
            arg = facts.keyword(call, "revision")
            if arg is None or facts.value(arg.value) not in ("fp16", "bf16"):
                continue
            if facts.called(call).startswith("diffusers.") and facts.keyword(call, "variant") is None:
                new = arg.with_changes(keyword=cst.Name("variant"))
                self.flag(arg, f"`revision={facts.value(arg.value)!r}` is deprecated: write `variant`", new)
