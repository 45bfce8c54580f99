"""DIFF050: `guidance_scale` where the model does not read it."""

from __future__ import annotations

from diffopt.doctor import rule


class GuidanceScaleIgnored(rule.Rule):
    """Find `guidance_scale` in calls of pipelines that guide by `true_cfg_scale` and have no guidance embedding."""

    id = "DIFF050"
    severity = "note"
    why = (
        "Qwen-Image pipelines have `guidance_scale` for models to come: the documentation says that it is ineffective, "
        "and that `true_cfg_scale` with a negative prompt is what guides."
    )
    evidence = (rule.docs("api/pipelines/qwenimage"),)
    fix = "Write `true_cfg_scale=`, and give a negative prompt."
    VALID = [
        """
        from diffusers import QwenImagePipeline
        pipe = QwenImagePipeline.from_pretrained("Qwen/Qwen-Image")
        image = pipe("a cat", negative_prompt=" ", true_cfg_scale=4.0).images[0]
        """,
    ]
    INVALID = [
        rule.Invalid(
            """
            from diffusers import QwenImagePipeline
            pipe = QwenImagePipeline.from_pretrained("Qwen/Qwen-Image")
            image = pipe("a cat", guidance_scale=4.0).images[0]
            """
        ),
    ]

    def check(self, facts: rule.Facts) -> None:
        for call, site in facts.calls:
            kind = facts.kind(site)
            arg = facts.keyword(call, "guidance_scale")
            if kind is None or arg is None or not kind.name.startswith("QwenImage"):
                continue
            if facts.model(site) in ("Qwen/Qwen-Image", "Qwen/Qwen-Image-Edit", "Qwen/Qwen-Image-2512"):
                self.flag(arg, f"{facts.model(site)} does not read `guidance_scale`: write `true_cfg_scale`")
