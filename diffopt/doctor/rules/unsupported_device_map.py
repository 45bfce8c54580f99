"""DIFF011: a device map that pipelines do not know."""

from __future__ import annotations

from diffopt.doctor import rule

UNKNOWN_TO_PIPELINES = ("auto", "balanced_low_0", "sequential")


class UnsupportedDeviceMap(rule.Rule):
    """Find `device_map="auto"` for a whole pipeline."""

    id = "DIFF011"
    severity = "error"
    why = (
        'Pipelines know `"balanced"` and the name of a device; `"auto"` is for single models. Everything else raises '
        "`NotImplementedError`."
    )
    evidence = (rule.docs("optimization/memory#multiple-gpus"), rule.source("pipelines/pipeline_utils.py"))
    fix = 'Write `device_map="balanced"` for several GPUs, `device_map="cuda"` for one.'
    VALID = [
        """
        from diffusers import FluxPipeline, FluxTransformer2DModel
        model = FluxTransformer2DModel.from_pretrained("model", subfolder="transformer", device_map="auto")
        pipe = FluxPipeline.from_pretrained("model", transformer=model, device_map="balanced")
        """,
    ]
    INVALID = [
        rule.Invalid(
            """
            from diffusers import FluxPipeline
            pipe = FluxPipeline.from_pretrained("model", device_map="auto")
            """
        ),
    ]

    def check(self, facts: rule.Facts) -> None:
        for site in facts.sites:
            arg = facts.keyword(site.call, "device_map")
            value = facts.value(arg.value) if arg is not None else None
            if arg is not None and site.loader == "from_pretrained" and value in UNKNOWN_TO_PIPELINES:
                message = f'pipelines do not know `device_map="{value}"`: write `"balanced"` or `"cuda"`'
                self.flag(arg, message)
