"""Turn on a cache of diffusers, in any pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from diffopt.backends.base import BackendError, Witness
from diffopt.backends.runtime.attachment import attachment, component_name
from diffopt.backends.runtime.open_cache_context import open_cache_context

Pipe = TypeVar("Pipe")
KINDS = ("first-block", "taylorseer", "mag")


def native_cache(
    pipe: Pipe,
    component: str = "transformer",
    *,
    kind: str = "first-block",
    threshold: float = 0.05,
    interval: int = 3,
    order: int = 1,
    warm: int = 3,
    longest: int = 3,
    ratios: Sequence[float] = (),
) -> Pipe:
    """Let diffusers cache blocks (`first-block`, `mag`, by `threshold`) or attentions (`taylorseer`, by `interval`).

    warm: steps at the start that run in full (`taylorseer`, `mag`).
    longest: cached steps in a row at most (`mag`).
    ratios: how much larger the blocks' residual is than a step before, one number for each step (`mag`).
    Works in pipelines that open no cache context and with transformers that lack the mixin. Raises BackendError if
    there is no such cache, or diffusers does not know the transformer's blocks.
    """
    import torch
    from diffusers import FirstBlockCacheConfig, MagCacheConfig, TaylorSeerCacheConfig
    from diffusers.hooks import apply_first_block_cache, apply_mag_cache, apply_taylorseer_cache

    from diffopt.backends.runtime.block_cache import blocks_of

    name, state = component_name(pipe, component), attachment(pipe)
    denoiser = getattr(pipe, name)
    if kind not in KINDS:
        raise BackendError(f"no cache {kind!r}", f"there are {', '.join(KINDS)}")
    if getattr(denoiser, "is_cache_enabled", False) or state.noted(name, "follow_step_plan"):
        raise BackendError(f"{name} is cached already")
    if kind == "mag" and not ratios:
        raise BackendError("mag needs ratios", "`python -m diffopt.bench.fit magcache MODEL` measures them")
    blocks, _ = blocks_of(denoiser)
    attentions = [child for child_name, child in blocks[-1].named_children() if child_name.startswith("attn")]
    watched = next(module for held in attentions for module in held.modules() if isinstance(module, torch.nn.Linear))
    calls, ran = [0], [0]
    if kind == "first-block":
        if any(getattr(block, "context_pre_only", False) for block in blocks):
            raise BackendError(
                f"the last block of {type(denoiser).__name__} returns no text: first-block cannot cache it"
            )
        apply_first_block_cache(denoiser, FirstBlockCacheConfig(threshold=threshold))
    elif kind == "mag":
        settings = MagCacheConfig(
            threshold=threshold,
            max_skip_steps=longest,
            retention_ratio=warm / len(ratios),
            num_inference_steps=len(ratios),
            mag_ratios=[*ratios],
        )
        apply_mag_cache(denoiser, settings)
    else:
        config = TaylorSeerCacheConfig(
            cache_interval=interval,
            max_order=order,
            disable_cache_before_step=warm,
            taylor_factors_dtype=next(denoiser.parameters()).dtype,
        )
        apply_taylorseer_cache(denoiser, config)
        if not any(hasattr(module, "_diffusers_hook") for module in blocks[-1].modules()):
            raise BackendError(f"taylorseer finds no attention in the blocks of {type(denoiser).__name__}")
    watched.register_forward_hook(lambda *_: _count(ran, state.counting))
    open_cache_context(pipe, component)
    denoiser.register_forward_hook(lambda *_: _count(calls, state.counting))
    state.note(name, "native_cache", kind=kind, threshold=threshold, interval=interval, order=order, warm=warm)
    state.witnesses.append(
        lambda: Witness(
            "native-cache", calls[0] - ran[0], f"{name}: {calls[0] - ran[0]} of {calls[0]} calls cached by {kind}"
        )
    )
    return pipe


def _count(counter: list[int], counting: Any) -> None:
    counter[0] += bool(counting)
