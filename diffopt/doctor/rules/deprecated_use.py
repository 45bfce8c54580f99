"""DIFF041: a method or an argument that diffusers has deprecated."""

from __future__ import annotations

from diffopt.doctor import rule
from diffopt.doctor.deprecations import deprecations


class DeprecatedUse(rule.Rule):
    """Find methods and arguments of a pipeline that the installed diffusers warns of."""

    id = "DIFF041"
    severity = "warning"
    why = (
        "A later version takes them out; some have no effect already. Which ones is read off the `deprecate(...)` calls "
        "of the installed diffusers."
    )
    evidence = (rule.source("utils/deprecation_utils.py"), rule.docs("using-diffusers/callback"))
    fix = "Use what the message of diffusers names."
    VALID = [
        """
        from diffusers import StableDiffusionPipeline
        pipe = StableDiffusionPipeline.from_pretrained("model")
        image = pipe("a cat", callback_on_step_end=lambda pipe, step, timestep, values: values).images[0]
        """,
    ]
    INVALID = [
        rule.Invalid(
            """
            from diffusers import StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("model")
            image = pipe("a cat", callback=lambda step, timestep, latents: None, callback_steps=5).images[0]
            """
        ),
        rule.Invalid(
            """
            from diffusers import StableDiffusionXLPipeline
            pipe = StableDiffusionXLPipeline.from_pretrained("model")
            pipe.upcast_vae()
            """
        ),
    ]

    def check(self, facts: rule.Facts) -> None:
        sites = [(site.call, site, site.loader or "__init__") for site in facts.sites]
        calls = [(call, site, "__call__") for call, site in facts.calls]
        uses = [(use.call, use.site, use.path[0]) for use in facts.uses if len(use.path) == 1]
        for call, site, method in (*sites, *calls, *uses):
            kind = facts.kind(site)
            for found in deprecations(kind.name) if kind is not None else ():
                if found.method != method:
                    continue
                if not found.argument:
                    self.flag(call.func, found.message)
                elif (arg := facts.keyword(call, found.argument)) is not None and facts.value(arg.value) is not None:
                    self.flag(arg, found.message)
