"""DIFF025: two caches on one model."""

from __future__ import annotations

from diffopt.doctor import rule


class TwoCaches(rule.Rule):
    """Find a second `enable_cache` on the same model."""

    id = "DIFF025"
    severity = "error"
    why = "A model takes one cache at a time; the second call raises `ValueError` until `disable_cache()` is called."
    evidence = (rule.docs("optimization/cache"), rule.source("models/cache_utils.py"))
    fix = "Keep one of them, or call `disable_cache()` in between."
    VALID = [
        """
        from diffusers import FirstBlockCacheConfig, FluxPipeline
        pipe = FluxPipeline.from_pretrained("model")
        pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.1))
        pipe.transformer.disable_cache()
        pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.2))
        """,
    ]
    INVALID = [
        rule.Invalid(
            """
            from diffusers import FirstBlockCacheConfig, FluxPipeline, TaylorSeerCacheConfig
            pipe = FluxPipeline.from_pretrained("model")
            pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.1))
            pipe.transformer.enable_cache(TaylorSeerCacheConfig())
            """
        ),
    ]

    def check(self, facts: rule.Facts) -> None:
        enabled = [use for use in facts.uses if use.path[-1] == "enable_cache" and len(use.path) > 1]
        for second in enabled:
            firsts = [u for u in enabled if u.site is second.site and u.path == second.path and u is not second]
            off = facts.uses_of(second.site, *second.path[:-1], "disable_cache")
            if not off and any(facts.before(first.call, second.call) for first in firsts):
                self.flag(second.call, f"`{'.'.join(second.path[:-1])}` has a cache already: this raises `ValueError`")
