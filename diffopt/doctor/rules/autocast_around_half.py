"""DIFF034: autocast round a pipeline that is in half precision already."""

from __future__ import annotations

import libcst as cst

from diffopt.doctor import rule


class AutocastAroundHalf(rule.Rule):
    """Find `torch.autocast` round the call of a pipeline that was loaded in float16."""

    id = "DIFF034"
    severity = "warning"
    why = (
        "Weights and inputs are in float16 already; autocast only adds a check and a cast to every operation, and moves "
        "some of them to float32 and back. Where it covers more than the models, results change."
    )
    evidence = (rule.docs("optimization/fp16"),)
    fix = "Leave `torch.autocast` out."
    VALID = [
        """
        import torch
        from diffusers import StableDiffusionPipeline
        pipe = StableDiffusionPipeline.from_pretrained("model").to("cuda")
        with torch.autocast("cuda"):
            image = pipe("a cat").images[0]
        """,
        """
        import torch
        from diffusers import StableDiffusionPipeline
        pipe = StableDiffusionPipeline.from_pretrained("model", dtype=torch.float16).to("cuda")
        pipe.text_encoder.to(torch.float32)
        with torch.autocast("cuda"):
            image = pipe("a cat").images[0]
        """,
    ]
    INVALID = [
        rule.Invalid(
            """
            import torch
            from diffusers import StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("model", dtype=torch.float16).to("cuda")
            with torch.autocast("cuda"):
                image = pipe("a cat").images[0]
            """
        ),
    ]

    def check(self, facts: rule.Facts) -> None:
        for call, site in facts.calls:
            if facts.dtype(site) != "float16" or not self._plain(facts, site.call):
                continue
            if any(use.site is site and len(use.path) == 2 and use.path[1] == "to" for use in facts.uses):
                continue  # a part of it may be in another precision
            for around in facts.script.ancestors(call):
                if not isinstance(around, cst.With):
                    continue
                for item in around.items:
                    if isinstance(item.item, cst.Call) and facts.called(item.item) == "torch.autocast":
                        message = "the pipeline is in float16 already: autocast only slows it down"
                        self.flag(item.item, message)

    def _plain(self, facts: rule.Facts, call: cst.Call) -> bool:
        """Say whether no part of a pipeline is given to it, which might be in another precision."""
        names = {arg.keyword.value for arg in call.args if arg.keyword is not None}
        known = {
            "dtype",
            "torch_dtype",
            "variant",
            "use_safetensors",
            "revision",
            "safety_checker",
            "token",
            "cache_dir",
        }
        return not facts.open(call) and names <= known
