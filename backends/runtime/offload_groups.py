"""Bring groups of layers to the GPU while they run."""

from __future__ import annotations

from typing import Any, TypeVar

from diffopt.backends.base import BackendError

Pipe = TypeVar("Pipe")


def offload_groups(pipe: Pipe, **arguments: Any) -> Pipe:
    """Call the pipeline's `enable_group_offload` where there is a GPU to bring the groups to.

    Raises BackendError where there is none: diffusers would fail in the middle of the first request.
    """
    import torch

    if not torch.cuda.is_available():
        raise BackendError("offload-groups needs a CUDA device, and there is none here", "leave it out on a processor")
    pipe.enable_group_offload(**arguments)  # type: ignore[attr-defined]
    return pipe
