"""DIFF038: an argument that the pipeline's call does not take."""

from __future__ import annotations

import difflib

from diffopt.doctor import rule
from diffopt.doctor.installed import extra_arguments, takes_any


class UnknownCallArgument(rule.Rule):
    """Find arguments that the `__call__` of a pipeline's class does not take."""

    id = "DIFF038"
    severity = "error"
    why = (
        "The call raises `TypeError`, or, where the class takes any argument, ignores it without a word. What a class "
        "takes is read off the installed diffusers."
    )
    evidence = (rule.docs("api/pipelines/overview"),)
    fix = "Write the argument as the class does, or leave it out."
    VALID = [
        """
        from diffusers import StableDiffusionPipeline
        pipe = StableDiffusionPipeline.from_pretrained("model")
        image = pipe(prompt="a cat", num_inference_steps=2).images[0]
        """,
    ]
    INVALID = [
        rule.Invalid(
            """
            from diffusers import FluxPipeline
            pipe = FluxPipeline.from_pretrained("model")
            image = pipe("a cat", cross_attention_kwargs={"scale": 0.5}).images[0]
            """
        ),
        rule.Invalid(
            """
            from diffusers import StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("model")
            image = pipe("a cat", seed=1).images[0]
            """
        ),
    ]

    def check(self, facts: rule.Facts) -> None:
        for call, site in facts.calls:
            kind = facts.kind(site)
            more = extra_arguments(kind.name) if kind is not None else None
            if kind is None or not kind.call or more is None or facts.replaced(site):
                continue
            does = ", and ignores it without a word" if takes_any(kind.name) else ""
            for arg in call.args:
                name = arg.keyword.value if arg.keyword is not None else ""
                if not name or name in kind.call or name in more:
                    continue
                near = difflib.get_close_matches(name, kind.call, 1, 0.7)
                advice = f"; is it `{near[0]}`?" if near else ""
                if name == "seed":
                    advice = "; give `generator=torch.Generator().manual_seed(...)`"
                self.flag(arg, f"`{kind.name}` takes no `{name}`{does}{advice}")
