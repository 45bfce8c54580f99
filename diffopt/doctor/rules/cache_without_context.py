"""DIFF024: a step cache in a pipeline that keeps no state for it."""

from __future__ import annotations

from diffopt.doctor import rule
from diffopt.doctor.installed import caches_with_context, has_cache, opens_cache_context


class CacheWithoutContext(rule.Rule):
    """Find `enable_cache` on the model of a pipeline whose source never opens `cache_context`."""

    id = "DIFF024"
    severity = "error"
    why = (
        "The hooks of these caches keep their state in a context that the pipeline opens round the call of its model. "
        'Many pipelines do not, and the first step raises "No cache context is set". Which ones is read off the '
        "installed diffusers."
    )
    evidence = (rule.issue(12012), rule.docs("optimization/cache"), rule.source("hooks/hooks.py"))
    fix = "Use a cache that needs no context (`PyramidAttentionBroadcastConfig`, `FasterCacheConfig`), or cache-dit."
    VALID = [
        """
        from diffusers import FirstBlockCacheConfig, FluxPipeline
        pipe = FluxPipeline.from_pretrained("model")
        pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.1))
        """,
    ]
    INVALID = [
        rule.Invalid(
            """
            from diffusers import FirstBlockCacheConfig, FluxImg2ImgPipeline
            pipe = FluxImg2ImgPipeline.from_pretrained("model")
            pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.1))
            """
        ),
        rule.Invalid(
            """
            from diffusers import FirstBlockCacheConfig, StableDiffusionXLPipeline
            pipe = StableDiffusionXLPipeline.from_pretrained("model")
            pipe.unet.enable_cache(FirstBlockCacheConfig())
            """
        ),
    ]

    def check(self, facts: rule.Facts) -> None:
        for use in facts.uses:
            if len(use.path) != 2 or use.path[1] != "enable_cache" or facts.mentions("cache_context"):
                continue
            part, kind = use.path[0], facts.kind(use.site)
            models = kind.components.get(part, ()) if kind is not None else ()
            if kind is None or not models or not all(model.startswith("diffusers.") for model in models):
                continue
            names = [model.rpartition(".")[2] for model in models]
            if not any(has_cache(name) for name in names):
                self.flag(use.call, f"`{names[0]}` has no `enable_cache`: this raises `AttributeError`")
            elif facts.configuration(use.call) in caches_with_context() and not opens_cache_context(kind.name):
                message = f"`{kind.name}` opens no cache context: its first step raises with this cache"
                self.flag(use.call, message)
