"""DIFF039: a number where a generator belongs."""

from __future__ import annotations

import libcst as cst

from diffopt.doctor import rule


class SeedInsteadOfGenerator(rule.Rule):
    """Find a number that is given as `generator`."""

    id = "DIFF039"
    severity = "error"
    why = "A generator is asked for its device before noise is drawn; a number has none, and the call raises."
    evidence = (rule.docs("using-diffusers/reusing_seeds"), rule.source("utils/torch_utils.py"))
    fix = 'Write `torch.Generator("cpu").manual_seed(0)`.'
    VALID = [
        """
        import torch
        from diffusers import StableDiffusionPipeline
        pipe = StableDiffusionPipeline.from_pretrained("model")
        image = pipe("a cat", generator=torch.manual_seed(0)).images[0]
        """,
    ]
    INVALID = [
        rule.Invalid(
            """
            import torch
            from diffusers import StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("model")
            image = pipe("a cat", num_inference_steps=2, generator=42).images[0]
            """,
            expected_replacement="""
            import torch
            from diffusers import StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("model")
            image = pipe("a cat", num_inference_steps=2, generator=torch.Generator("cpu").manual_seed(42)).images[0]
            """,
        ),
    ]

    def check(self, facts: rule.Facts) -> None:
        for call, _ in facts.calls:
            arg = facts.keyword(call, "generator")
            value = facts.value(arg.value) if arg is not None else None
            if arg is None or not isinstance(value, int) or isinstance(value, bool):
                continue
            code = f'torch.Generator("cpu").manual_seed({facts.script.code(arg.value)})'
            new = cst.parse_expression(code) if facts.imports("torch") else None
            self.flag(arg.value, f"a number is no generator: write `{code}`", new)
