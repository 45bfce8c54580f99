"""DIFF004: code from the hub is run at whatever version it has today."""

from __future__ import annotations

import libcst as cst

from diffopt.doctor import rule


class RemoteCodeWithoutRevision(rule.Rule):
    """Find `trust_remote_code=True` for a hub repository without a pinned revision."""

    id = "DIFF004"
    severity = "warning"
    why = (
        "The repository's Python code is downloaded and run here. Without a commit in `revision`, what runs is whatever "
        "its owner pushed last."
    )
    evidence = (rule.source("pipelines/pipeline_utils.py"), rule.docs("using-diffusers/custom_pipeline_overview"))
    fix = "Add `revision=` (or `custom_revision=` for `custom_pipeline`) with a commit that you have read."
    VALID = [
        """
        from diffusers import DiffusionPipeline
        pipe = DiffusionPipeline.from_pretrained("owner/model", trust_remote_code=True, revision="0f2b1c9")
        """,
        """
        from diffusers import DiffusionPipeline
        pipe = DiffusionPipeline.from_pretrained("./model", trust_remote_code=True)
        """,
    ]
    INVALID = [
        rule.Invalid(
            """
            from diffusers import DiffusionPipeline
            pipe = DiffusionPipeline.from_pretrained("owner/model", trust_remote_code=True)
            """
        ),
    ]

    def check(self, facts: rule.Facts) -> None:
        for call in facts.script.all(cst.Call):
            arg = facts.keyword(call, "trust_remote_code")
            if arg is None or facts.value(arg.value) is not True or facts.open(call):
                continue
            model = facts.value(facts.argument(call, "pretrained_model_name_or_path", 0))
            pinned = any(facts.keyword(call, name) for name in ("revision", "custom_revision"))
            hub = isinstance(model, str) and model.count("/") == 1 and not model.startswith((".", "/", "~"))
            if facts.called(call).startswith("diffusers.") and hub and not pinned:
                self.flag(arg, f"code of {model} is run unpinned: add `revision=` with a commit that you have read")
