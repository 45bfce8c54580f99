"""Norm and modulate in one kernel, with the gated residual ahead of it where there is one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MethodType
from typing import Any, TypeVar

from diffopt.backends.runtime.fused import fused

Pipe = TypeVar("Pipe")


def fuse_modulation(pipe: Pipe, component: str) -> Pipe:
    """Run the adaptive layer norms of a transformer's blocks as kernels.

    Raises BackendError if the component has none, or is compiled or exported already.
    """
    from diffopt.backends.runtime import modulated_blocks

    forms: Mapping[type, tuple[Callable[..., Any], int]] = modulated_blocks.FORMS

    def replace(part: Any) -> int:
        form = forms.get(type(part))
        if form is None or not modulated_blocks.fits(part):
            return 0
        part.__dict__["forward"] = MethodType(form[0], part)
        return form[1]

    return fused(pipe, component, "fuse_modulation", "adaptive norms", replace)
