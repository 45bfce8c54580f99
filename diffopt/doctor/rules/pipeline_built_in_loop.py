"""DIFF031: the same pipeline is loaded in every round of a loop."""

from __future__ import annotations

from diffopt.doctor import rule


class PipelineBuiltInLoop(rule.Rule):
    """Find a pipeline that is loaded in a loop from what does not change."""

    id = "DIFF031"
    severity = "warning"
    why = (
        "Loading reads gigabytes and takes longer than many images. A second pipeline on the same weights is made "
        "without loading: `from_pipe` shares them."
    )
    evidence = (rule.docs("using-diffusers/loading"), rule.source("pipelines/pipeline_utils.py"))
    fix = "Load it once, before the loop."
    VALID = [
        """
        from diffusers import StableDiffusionPipeline
        for model in ("one", "two"):
            pipe = StableDiffusionPipeline.from_pretrained(model)
            pipe("a cat").images[0].save(f"{model}.png")
        """,
    ]
    INVALID = [
        rule.Invalid(
            """
            from diffusers import StableDiffusionPipeline
            for number, prompt in enumerate(("a cat", "a dog")):
                pipe = StableDiffusionPipeline.from_pretrained("model").to("cuda")
                pipe(prompt).images[0].save(f"{number}.png")
            """
        ),
    ]

    def check(self, facts: rule.Facts) -> None:
        for site in facts.sites:
            loop = facts.loop(site.call)
            if loop is None or site.loader not in ("from_pretrained", "from_single_file"):
                continue
            fixed = not any(facts.varies(arg.value, loop) for arg in site.call.args)
            if fixed and facts.repeats(site.call, loop):
                self.flag(site.call, "the same pipeline is loaded in every round: load it before the loop")
