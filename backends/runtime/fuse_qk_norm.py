"""Norm, join and rotate queries and keys in one kernel."""

from __future__ import annotations

from typing import Any, TypeVar

from diffopt.backends.runtime.fused import fused

Pipe = TypeVar("Pipe")


def fuse_qk_norm(pipe: Pipe, component: str) -> Pipe:
    """Make queries and keys of joint attention (Flux, Stable Diffusion 3.5) ready in a kernel each.

    Raises BackendError if no attention of the component norms its queries and keys so, or it is compiled or exported.
    """
    from diffopt.backends.runtime.joint_attention import fused_processor

    def replace(part: Any) -> int:
        made = fused_processor(part)
        if made is None:
            return 0
        part.set_processor(made)
        return 1

    return fused(pipe, component, "fuse_qk_norm", "attention layers with normed queries", replace)
