"""DIFF022: a model is compiled again in every round of a loop."""

from __future__ import annotations

from diffopt.doctor import rule
from diffopt.doctor.compiled import compilations


class CompileInLoop(rule.Rule):
    """Find a model that is compiled in a loop and built outside of it."""

    id = "DIFF022"
    severity = "warning"
    why = (
        "Each round wraps the wrapped model once more, so that calls go through more and more layers and what was "
        "compiled is not found again."
    )
    evidence = (rule.docs("optimization/fp16#torchcompile"), rule.issue(11360))
    fix = "Compile once, before the loop."
    VALID = [
        """
        import torch
        from diffusers import StableDiffusionPipeline
        for name in ("one", "two"):
            pipe = StableDiffusionPipeline.from_pretrained(name)
            pipe.unet = torch.compile(pipe.unet)
        """,
    ]
    INVALID = [
        rule.Invalid(
            """
            import torch
            from diffusers import StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("model")
            for prompt in ("a cat", "a dog"):
                pipe.unet = torch.compile(pipe.unet)
                image = pipe(prompt).images[0]
            """
        ),
    ]

    def check(self, facts: rule.Facts) -> None:
        for compiled in compilations(facts):
            loop = facts.loop(compiled.node)
            if loop is None or compiled.regional or loop in facts.script.ancestors(compiled.site.call):
                continue
            if facts.unconditional(compiled.node, loop):
                self.flag(compiled.node, "the model is compiled again in every round: compile it before the loop")
