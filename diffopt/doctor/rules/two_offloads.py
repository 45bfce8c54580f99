"""DIFF010: two ways of offloading at once."""

from __future__ import annotations

from diffopt.doctor import rule

CPU = ("enable_model_cpu_offload", "enable_sequential_cpu_offload")
GROUP = "enable_group_offload"


class TwoOffloads(rule.Rule):
    """Find model or sequential offloading of a pipeline that has group offloading, and the other way round."""

    id = "DIFF010"
    severity = "error"
    why = (
        "Model and sequential offloading move whole models with hooks of accelerate, group offloading moves their "
        "layers with hooks of diffusers; the second one raises `ValueError`, and model after sequential offloading "
        "throws away the hooks of the first."
    )
    evidence = (rule.source("pipelines/pipeline_utils.py"), rule.docs("optimization/memory#offloading"))
    fix = "Keep one of them."
    VALID = [
        """
        from diffusers import FluxPipeline
        pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev")
        pipe.enable_group_offload("cuda", num_blocks_per_group=1)
        """,
        """
        import sys
        from diffusers import FluxPipeline
        pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev")
        if sys.argv[1:]:
            pipe.enable_model_cpu_offload()
        else:
            pipe.enable_sequential_cpu_offload()
        """,
    ]
    INVALID = [
        rule.Invalid(
            """
            from diffusers import FluxPipeline
            pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev")
            pipe.enable_group_offload("cuda", num_blocks_per_group=1)
            pipe.enable_model_cpu_offload()
            """
        ),
        rule.Invalid(
            """
            from diffusers import FluxPipeline
            pipe = FluxPipeline.from_pretrained("black-forest-labs/FLUX.1-dev")
            pipe.enable_sequential_cpu_offload()
            pipe.enable_model_cpu_offload()
            """
        ),
    ]

    def check(self, facts: rule.Facts) -> None:
        for second in facts.uses:
            if second.path[-1] not in (*CPU, GROUP):
                continue
            for first in facts.uses:
                if first.site is not second.site or first.path[-1] not in (*CPU, GROUP):
                    continue
                both = {first.path[-1], second.path[-1]}
                if len(both) == 2 and facts.before(first.call, second.call) and self._clash(first.path, second.path):
                    message = f"`{second.path[-1]}` after `{first.path[-1]}` does not work: keep one of them"
                    self.flag(second.call, message)
                    break

    def _clash(self, first: tuple[str, ...], second: tuple[str, ...]) -> bool:
        """Say whether both are on the pipeline; one model may be offloaded in groups while the pipeline is not."""
        return len(first) == 1 == len(second) or (first[-1] == GROUP and len(second) == 1)
