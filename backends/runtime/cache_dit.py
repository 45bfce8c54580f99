"""Let cache-dit cache the blocks of a transformer."""

from __future__ import annotations

from typing import Any, TypeVar

from diffopt.backends.base import BackendError, Witness
from diffopt.backends.runtime.attachment import attachment, component_name

Pipe = TypeVar("Pipe")


def cache_dit(
    pipe: Pipe, component: str, *, first: int, last: int, threshold: float, warm: int, order: int = 0
) -> Pipe:
    """Turn on cache-dit's DBCache, with a TaylorSeer forecast of that `order` where it is not 0.

    first, last: blocks that run at every step; warm: steps that run in full at the start; threshold: how far the residual
    of the first blocks may change for the others to be skipped. Raises BackendError if cache-dit does not know the
    pipeline, or the transformer is cached, compiled or exported already.
    """
    import cache_dit as library

    name, state = component_name(pipe, component), attachment(pipe)
    denoiser: Any = getattr(pipe, name)
    for earlier in ("export", "compile", "native_cache", "follow_step_plan", "cache_dit"):
        if state.noted(name, earlier):
            raise BackendError(f"{name}: cache_dit cannot follow {earlier}")
    config = library.DBCacheConfig(
        Fn_compute_blocks=first, Bn_compute_blocks=last, max_warmup_steps=warm, residual_diff_threshold=threshold
    )
    forecast = library.TaylorSeerCalibratorConfig(taylorseer_order=order) if order else None
    try:
        library.enable_cache(pipe, cache_config=config, calibrator_config=forecast)
    except (ValueError, AssertionError, AttributeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise BackendError(f"cache-dit does not take {type(denoiser).__name__}: {reason}") from error
    state.note(name, "cache_dit", first=first, last=last, threshold=threshold, warm=warm, order=order)
    state.witnesses.append(lambda: _witness(pipe, name))
    return pipe


def _witness(pipe: Any, name: str) -> Witness:
    """Read off cache-dit's own counts of the last request."""
    import cache_dit as library

    stats = library.summary(pipe, logging=False)
    cached = sum(len(entry.cached_steps or ()) + len(getattr(entry, "cfg_cached_steps", None) or ()) for entry in stats)
    return Witness("cache_dit", cached, f"{name}: {cached} calls of the last request with cached blocks")
