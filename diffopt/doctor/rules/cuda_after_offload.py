"""DIFF009: the pipeline is moved to the GPU after offloading was switched on."""

from __future__ import annotations

from diffopt.doctor import rule
from diffopt.doctor.between import used_between

OFFLOADS = ("enable_model_cpu_offload", "enable_sequential_cpu_offload")


class CudaAfterOffload(rule.Rule):
    """Find `.to("cuda")` after offloading was switched on."""

    id = "DIFF009"
    severity = "error"
    why = (
        "After `enable_sequential_cpu_offload` the move raises; after `enable_model_cpu_offload` it undoes what "
        "offloading saves."
    )
    evidence = (rule.source("pipelines/pipeline_utils.py"), rule.docs("optimization/memory#offloading"))
    fix = 'Leave `.to("cuda")` out.'
    VALID = [
        """
        from diffusers import StableDiffusionPipeline
        pipe = StableDiffusionPipeline.from_pretrained("model")
        pipe.enable_model_cpu_offload()
        pipe.to("cpu")
        """,
    ]
    INVALID = [
        rule.Invalid(
            """
            from diffusers import StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("model")
            pipe.enable_model_cpu_offload()
            pipe.to("cuda")
            """,
            expected_replacement="""
            from diffusers import StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("model")
            pipe.enable_model_cpu_offload()
            """,
        ),
    ]

    def check(self, facts: rule.Facts) -> None:
        for offload in facts.uses:
            if len(offload.path) != 1 or offload.path[0] not in OFFLOADS:
                continue
            if facts.uses_of(offload.site, "remove_all_hooks"):
                continue
            for move in facts.uses_of(offload.site, "to"):
                if len(move.path) != 1 or not facts.before(offload.call, move.call):
                    continue
                if facts.device(facts.argument(move.call, "device", 0)) not in ("cuda", "xpu"):
                    continue
                does = "raises" if "sequential" in offload.path[0] else "undoes it"
                message = f'`.to("cuda")` after `{offload.path[0]}` {does}: leave it out'
                # parts that are used by hand may count on being on the GPU; sequential offloading has raised before
                fix = does == "raises" or not used_between(facts, move.site, move.call)
                self.flag_call(facts, move.call, message, fix)
