"""DIFF023: a step cache inside of a graph that may not break."""

from __future__ import annotations

from diffopt.doctor import rule
from diffopt.doctor.compiled import compilations
from diffopt.doctor.installed import caches_with_context

EXACT = "TextKVCacheConfig"


class FullgraphWithCache(rule.Rule):
    """Find `fullgraph=True` on a model that has a step cache."""

    id = "DIFF023"
    severity = "error"
    why = (
        "Whether a step may be skipped is decided by the data, outside of the graph: the hooks of the caches are marked "
        "`@torch.compiler.disable`, and a graph that may not break raises there."
    )
    evidence = (rule.source("hooks/first_block_cache.py"), rule.docs("optimization/fp16#regional-compilation"))
    fix = "Compile the blocks (`compile_repeated_blocks`) or leave `fullgraph=True` out."
    VALID = [
        """
        from diffusers import FirstBlockCacheConfig, FluxPipeline
        pipe = FluxPipeline.from_pretrained("model")
        pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.1))
        pipe.transformer.compile_repeated_blocks(fullgraph=True)
        """,
    ]
    INVALID = [
        rule.Invalid(
            """
            import torch
            from diffusers import FirstBlockCacheConfig, FluxPipeline
            pipe = FluxPipeline.from_pretrained("model")
            pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.1))
            pipe.transformer = torch.compile(pipe.transformer, fullgraph=True)
            """
        ),
    ]

    def check(self, facts: rule.Facts) -> None:
        for compiled in compilations(facts):
            arg = facts.keyword(compiled.node, "fullgraph")
            if arg is None or facts.value(arg.value) is not True or compiled.regional:
                continue
            for use in facts.uses_of(compiled.site, *compiled.path, "enable_cache"):
                config = facts.configuration(use.call)
                known = config in caches_with_context() and config != EXACT
                if known and not facts.uses_of(compiled.site, *compiled.path, "disable_cache"):
                    self.flag(arg, f"the graph breaks at the hooks of `{config}`: compile the repeated blocks instead")
