"""DIFF027: a scheduler is made from another scheduler instead of its configuration."""

from __future__ import annotations

import libcst as cst

from diffopt.doctor import rule


class SchedulerFromScheduler(rule.Rule):
    """Find `from_config(pipe.scheduler)` without `.config`."""

    id = "DIFF027"
    severity = "error"
    why = "`from_config` takes a configuration; anything else is taken for the path of one, and the call fails."
    evidence = (rule.source("configuration_utils.py"), rule.docs("using-diffusers/schedulers"))
    fix = "Write `from_config(pipe.scheduler.config)`."
    VALID = [
        """
        from diffusers import DDIMScheduler, StableDiffusionPipeline
        pipe = StableDiffusionPipeline.from_pretrained("model")
        pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
        """,
    ]
    INVALID = [
        rule.Invalid(
            """
            from diffusers import DDIMScheduler, StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("model")
            pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler)
            """,
            expected_replacement="""
            from diffusers import DDIMScheduler, StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("model")
            pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
            """,
        ),
    ]

    def check(self, facts: rule.Facts) -> None:
        for call in facts.script.all(cst.Call):
            name = facts.called(call)
            if not (name.startswith("diffusers.") and name.endswith("Scheduler.from_config")):
                continue
            given = facts.argument(call, "config", 0)
            if isinstance(given, cst.Attribute) and given.attr.value == "scheduler" and facts.site(given.value):
                new = cst.Attribute(given, cst.Name("config"))
                self.flag(given, "`from_config` takes a configuration: write `.scheduler.config`", new)
