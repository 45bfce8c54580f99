"""Fold the adapter of a distilled model into the denoiser's weights."""

from __future__ import annotations

from typing import Any, TypeVar

from diffopt.backends.base import BackendError, Witness
from diffopt.backends.runtime.attachment import attachment, component_name
from diffopt.backends.runtime.fuse_lora import fold_adapters

Pipe = TypeVar("Pipe")
NAME = "diffopt_distilled"


def distill_lora(pipe: Pipe, component: str, *, adapter: str, weight_name: str = "") -> Pipe:
    """Load the adapter from a directory or hub id, fold it into the weights, and let go of it.

    Adapters that are loaded already are folded in first, at their strengths. Raises BackendError if the pipeline takes no
    adapters, or this one has no layer of it.
    """
    name, state = component_name(pipe, component), attachment(pipe)
    live: Any = pipe
    if not hasattr(live, "load_lora_weights"):
        raise BackendError(f"{type(pipe).__name__} takes no adapters")
    fold_adapters(pipe)
    try:
        live.load_lora_weights(adapter, adapter_name=NAME, **({"weight_name": weight_name} if weight_name else {}))
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise BackendError(f"the adapter {adapter!r} does not load: {reason}") from error
    layers = fold_adapters(pipe)
    if not layers:
        raise BackendError(f"the adapter {adapter!r} has no layer of {type(pipe).__name__}")
    state.note(name, "distill_lora", adapter=adapter, weight_name=weight_name)
    state.witnesses.append(lambda: Witness("distill_lora", layers, f"{layers} layers with the adapter folded in"))
    return pipe
