"""DIFF012: a pipeline that is spread over devices is moved or offloaded."""

from __future__ import annotations

import libcst as cst

from diffopt.doctor import rule

MOVES = ("to", "enable_model_cpu_offload", "enable_sequential_cpu_offload")


class MoveAfterDeviceMap(rule.Rule):
    """Find `to` and offloading on a pipeline that was loaded with `device_map="balanced"`."""

    id = "DIFF012"
    severity = "error"
    why = "A device map has placed the models already; moving or offloading them then raises `ValueError`."
    evidence = (rule.docs("optimization/memory#multiple-gpus"), rule.source("pipelines/pipeline_utils.py"))
    fix = "Leave the move out, or call `reset_device_map()` before it."
    VALID = [
        """
        from diffusers import FluxPipeline
        pipe = FluxPipeline.from_pretrained("model", device_map="balanced")
        pipe.reset_device_map()
        pipe.enable_model_cpu_offload()
        """,
        """
        from diffusers import FluxPipeline
        pipe = FluxPipeline.from_pretrained("model", device_map="cuda")
        pipe.enable_model_cpu_offload()
        """,
    ]
    INVALID = [
        rule.Invalid(
            """
            from diffusers import FluxPipeline
            pipe = FluxPipeline.from_pretrained("model", device_map="balanced")
            pipe.enable_model_cpu_offload()
            """
        ),
    ]

    def check(self, facts: rule.Facts) -> None:
        for use in facts.uses:
            arg = facts.keyword(use.site.call, "device_map")
            if len(use.path) != 1 or use.path[0] not in MOVES or arg is None or facts.value(arg.value) != "balanced":
                continue
            if not facts.uses_of(use.site, "reset_device_map") and (
                use.path[0] != "to" or self._moves(facts, use.call)
            ):
                message = f'`{use.path[0]}` raises after `device_map="balanced"`: call `reset_device_map()` before it'
                self.flag(use.call, message)

    def _moves(self, facts: rule.Facts, call: cst.Call) -> bool:

        return bool(facts.device(facts.argument(call, "device", 0)))
