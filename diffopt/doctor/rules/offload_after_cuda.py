"""DIFF008: the pipeline is moved to the GPU before offloading is switched on."""

from __future__ import annotations

import libcst as cst

from diffopt.doctor import rule
from diffopt.doctor.between import used_between
from diffopt.doctor.edits import without_statement

OFFLOADS = ("enable_model_cpu_offload", "enable_sequential_cpu_offload", "enable_group_offload")


class OffloadAfterCuda(rule.Rule):
    """Find `.to("cuda")` before offloading is switched on."""

    id = "DIFF008"
    severity = "warning"
    why = (
        "The whole pipeline must fit on the GPU once, which is what offloading is there to avoid, and is then copied "
        "back. The documentation warns that the memory saved is only minimal."
    )
    evidence = (rule.docs("optimization/memory#cpu-offloading"), rule.issue(1934))
    fix = 'Leave `.to("cuda")` out: offloading moves what is needed when it is needed.'
    VALID = [
        """
        from diffusers import StableDiffusionPipeline
        pipe = StableDiffusionPipeline.from_pretrained("model")
        pipe.enable_model_cpu_offload()
        """,
        """
        from diffusers import StableDiffusionPipeline
        pipe = StableDiffusionPipeline.from_pretrained("model").to("cuda")
        image = pipe("a cat").images[0]
        pipe.enable_model_cpu_offload()
        """,
    ]
    INVALID = [
        rule.Invalid(
            """
            from diffusers import StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("model").to("cuda")
            pipe.enable_model_cpu_offload()
            """,
            expected_replacement="""
            from diffusers import StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("model")
            pipe.enable_model_cpu_offload()
            """,
        ),
        rule.Invalid(
            """
            from diffusers import StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("model")
            # to the card
            pipe.to("cuda")
            pipe.enable_sequential_cpu_offload()
            """,
            expected_replacement="""
            from diffusers import StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("model")
            # to the card
            pipe.enable_sequential_cpu_offload()
            """,
        ),
    ]

    def check(self, facts: rule.Facts) -> None:
        for site in facts.sites:
            if facts.keyword(site.call, "quantization_config") is not None:
                continue  # quantized weights are put on the GPU when they are loaded
            offloads = [use for use in facts.uses if use.site is site and use.path in [(name,) for name in OFFLOADS]]
            moves = [use for use in facts.uses_of(site, "to") if use.path == ("to",) and len(use.call.args) == 1]
            for move in moves:
                if facts.device(facts.argument(move.call, "device", 0)) not in ("cuda", "xpu"):
                    continue
                after = next((o for o in offloads if facts.before(move.call, o.call)), None)
                if after is None or used_between(facts, site, move.call, after.call):
                    continue
                message = f'`.to("cuda")` before `{after.path[0]}` loads everything onto the GPU first: leave it out'
                line = facts.statement(move.call)
                if line is not None and (facts.is_statement(move.call) or self._is_same(facts, move)):
                    self.flag(line, message, without_statement(line, facts.script.parents.get(line)), at=move.call)
                else:
                    self.flag(move.call, message, move.holder)

    def _is_same(self, facts: rule.Facts, move: object) -> bool:
        """Say whether a statement is `pipe = pipe.to("cuda")`."""
        from diffopt.doctor.facts import Use

        assert isinstance(move, Use)
        statement = facts.script.parents.get(move.call)
        if not isinstance(statement, cst.Assign) or len(statement.targets) != 1:
            return False
        return facts.script.code(statement.targets[0].target) == facts.script.code(move.holder)
