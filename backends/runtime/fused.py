"""Put kernels in the place of a component's layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from diffopt.backends.base import BackendError, Witness
from diffopt.backends.runtime.attachment import attachment, component_name

Pipe = TypeVar("Pipe")


def fused(pipe: Pipe, component: str, transform: str, layers: str, replace: Callable[[Any], int]) -> Pipe:
    """Let `replace` put kernels into each part of a component, and witness how many layers run on them.

    Off a GPU the kernels' operators compute in torch what was computed before, and the witness counts none.
    layers: what the layers are called. replace: changes a module where it can, and returns how many layers that were.
    Raises BackendError if it was done already, nothing is there to replace, or the component is compiled or exported.
    """
    name, state = component_name(pipe, component), attachment(pipe)
    for earlier in ("export", "compile", "capture_step", transform):
        if state.noted(name, earlier) or state.noted("pipeline", earlier):
            raise BackendError(f"{name}: {transform} cannot follow {earlier}")
    root = getattr(pipe, name)
    count = sum(replace(part) for part in root.modules())
    if not count:
        raise BackendError(f"{name} ({type(root).__name__}) has no {layers} that a kernel could take")
    state.note(name, transform)

    def witness() -> Witness:
        from diffopt.backends.kernels.launching import interpreted, triton

        on_gpu = next(root.parameters()).is_cuda and triton is not None
        detail = f"{name}: {count} {layers}" + (
            "" if on_gpu or interpreted() else ", computed by torch: no Triton here"
        )
        return Witness(transform, count if on_gpu or interpreted() else 0, detail)

    state.witnesses.append(witness)
    return pipe
