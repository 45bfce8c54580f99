"""Compute the gate of GEGLU layers in a kernel."""

from __future__ import annotations

from types import MethodType
from typing import TYPE_CHECKING, Any, TypeVar

from diffopt.backends.runtime.fused import fused

if TYPE_CHECKING:
    import torch

Pipe = TypeVar("Pipe")


def fuse_geglu(pipe: Pipe, component: str) -> Pipe:
    """Run the gates of a component's GEGLU layers as kernels.

    Raises BackendError if the component has none, or is compiled or exported already.
    """
    from diffusers.models.activations import GEGLU

    def replace(part: Any) -> int:
        if type(part) is not GEGLU:
            return 0
        part.__dict__["forward"] = MethodType(_gated, part)
        return 1

    return fused(pipe, component, "fuse_geglu", "GEGLU layers", replace)


def _gated(layer: Any, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    from diffopt.backends.kernels.geglu import geglu

    found: torch.Tensor = geglu(layer.proj(hidden_states))
    return found
