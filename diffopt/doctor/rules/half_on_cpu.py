"""DIFF006: float16 on a CPU."""

from __future__ import annotations

from diffopt.doctor import rule


class HalfOnCpu(rule.Rule):
    """Find a pipeline that is loaded in float16 and called on the CPU."""

    id = "DIFF006"
    severity = "error"
    why = (
        "PyTorch lacks float16 versions of some operations on CPUs and emulates others, so that the call fails or takes "
        "much longer than in float32. Diffusers warns that such a pipeline cannot run."
    )
    evidence = (rule.source("pipelines/pipeline_utils.py"),)
    fix = "Load in `torch.float32`, or `torch.bfloat16` on a CPU that has it."
    VALID = [
        """
        import torch
        from diffusers import StableDiffusionPipeline
        pipe = StableDiffusionPipeline.from_pretrained("model", dtype=torch.float16).to("cuda")
        image = pipe("a cat").images[0]
        pipe.to("cpu")
        """,
        """
        import torch
        from diffusers import StableDiffusionPipeline
        pipe = StableDiffusionPipeline.from_pretrained("model", dtype=torch.bfloat16).to("cpu")
        image = pipe("a cat").images[0]
        """,
    ]
    INVALID = [
        rule.Invalid(
            """
            import torch
            from diffusers import StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("model", dtype=torch.float16)
            pipe = pipe.to("cpu")
            image = pipe("a cat").images[0]
            """
        ),
    ]

    def check(self, facts: rule.Facts) -> None:
        for site in facts.sites:
            moves = facts.uses_of(site, "to")
            moves = [use for use in moves if use.path == ("to",)]
            if facts.dtype(site) != "float16" or len(moves) != 1 or len(moves[0].call.args) != 1:
                continue
            offloads = [use for use in facts.uses if use.site is site and "offload" in use.path[-1]]
            device = facts.argument(moves[0].call, "device", 0)
            called = any(facts.before(moves[0].call, call) for call in facts.calls_of(site))
            if facts.device(device) == "cpu" and called and not offloads:
                self.flag(moves[0].call, "float16 does not run well on a CPU: load in `torch.float32`")
