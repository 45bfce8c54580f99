"""Fold low-rank adapters into the weights they adapt."""

from __future__ import annotations

from typing import Any, TypeVar

from diffopt.backends.base import BackendError, Witness
from diffopt.backends.runtime.attachment import attachment, component_name

Pipe = TypeVar("Pipe")


def fuse_lora(pipe: Pipe, component: str) -> Pipe:
    """Fold the active adapters, at their strengths, into the weights of every part that has them, and let go of them.

    component: the denoiser, to whose layers it is noted. Raises BackendError if no adapter is loaded, or the weights are
    quantized, compiled or exported already.
    """
    name, state = component_name(pipe, component), attachment(pipe)
    for earlier in ("quantize", "compile", "export"):
        if state.noted(name, earlier):
            raise BackendError(f"{name}: fuse_lora cannot follow {earlier}")
    folded = fold_adapters(pipe)
    if not folded:
        raise BackendError(f"no adapter is loaded on {type(pipe).__name__}", "load one before fuse-lora")
    state.note(name, "fuse_lora", layers=folded)
    detail = f"{folded} layers with their adapters folded in"
    state.witnesses.append(lambda: Witness("fuse_lora", folded, detail))
    return pipe


def fold_adapters(pipe: Any) -> int:
    """Fold the active adapters into the weights and take their layers out; return how many layers had some."""
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer

    held = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    adapted = {n: sum(isinstance(m, BaseTunerLayer) for m in part.modules()) for n, part in held.items()}
    names = [name for name, count in adapted.items() if count]
    if names:
        pipe.fuse_lora(components=names)
        pipe.unload_lora_weights()
    return sum(adapted.values())
