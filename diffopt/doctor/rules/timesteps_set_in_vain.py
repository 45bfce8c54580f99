"""DIFF030: timesteps that the pipeline sets again."""

from __future__ import annotations

import libcst as cst

from diffopt.doctor import rule
from diffopt.doctor.between import used_between


class TimestepsSetInVain(rule.Rule):
    """Find `pipe.scheduler.set_timesteps(...)` before a call of the pipeline."""

    id = "DIFF030"
    severity = "warning"
    why = "A pipeline's call sets the timesteps itself, from `num_inference_steps`: what was set before is overwritten."
    evidence = (rule.source("pipelines/stable_diffusion/pipeline_stable_diffusion.py"),)
    fix = "Leave the call out and give `num_inference_steps` to the pipeline."
    VALID = [
        """
        from diffusers import StableDiffusionPipeline
        pipe = StableDiffusionPipeline.from_pretrained("model")
        pipe.scheduler.set_timesteps(30)
        for timestep in pipe.scheduler.timesteps:
            print(timestep)
        """,
    ]
    INVALID = [
        rule.Invalid(
            """
            from diffusers import StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("model")
            pipe.scheduler.set_timesteps(2)
            image = pipe("a cat", num_inference_steps=2).images[0]
            """,
            expected_replacement="""
            from diffusers import StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("model")
            image = pipe("a cat", num_inference_steps=2).images[0]
            """,
        ),
    ]

    def check(self, facts: rule.Facts) -> None:
        read = {"timesteps", "sigmas", "alphas_cumprod", "step", "add_noise", "scale_noise"}
        if any(node.attr.value in read for node in facts.script.all(cst.Attribute)):
            return
        for use in facts.uses:
            kind = facts.kind(use.site)
            if use.path != ("scheduler", "set_timesteps") or kind is None or not facts.stays(use.site):
                continue
            if "num_inference_steps" not in kind.call or not facts.is_statement(use.call):
                continue
            later = [call for call in facts.calls_of(use.site) if facts.before(use.call, call)]
            if later and not used_between(facts, use.site, use.call, later[0]):
                self.flag_call(facts, use.call, "the pipeline's call sets the timesteps again: leave it out")
