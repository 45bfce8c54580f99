"""Split the sequence of one request over several GPUs, by diffusers' own API."""

from __future__ import annotations

from typing import Any, TypeVar

from diffopt.backends.base import BackendError, Witness
from diffopt.backends.runtime.attachment import attachment, component_name

Pipe = TypeVar("Pipe")


def context_parallel(pipe: Pipe, component: str, *, gpus: int, kind: str = "ulysses") -> Pipe:
    """Call the denoiser's `enable_parallelism` in each of `gpus` processes that run this code.

    kind: `ulysses` exchanges heads, `ring` passes keys and values round. Raises BackendError where there are not as many
    processes or GPUs, saying how to start them.
    """
    import torch
    from diffusers import ContextParallelConfig

    group = torch.distributed
    if not group.is_available() or not group.is_initialized():
        raise BackendError(
            f"context-parallel runs in {gpus} processes, and this is one alone",
            f"start it with torchrun --nproc-per-node {gpus}, and call torch.distributed.init_process_group() first",
        )
    if group.get_world_size() != gpus:
        raise BackendError(f"context-parallel was made for {gpus} processes, and there are {group.get_world_size()}")
    if torch.cuda.device_count() < gpus:
        raise BackendError(f"context-parallel needs {gpus} GPUs, and {torch.cuda.device_count()} are seen here")
    name, state = component_name(pipe, component), attachment(pipe)
    denoiser: Any = getattr(pipe, name)
    denoiser.enable_parallelism(config=ContextParallelConfig(**{f"{kind}_degree": gpus}))
    calls = [0]
    denoiser.register_forward_hook(lambda *_: calls.__setitem__(0, calls[0] + state.counting))
    state.note(name, "context_parallel", gpus=gpus, kind=kind)
    state.witnesses.append(lambda: Witness("context_parallel", calls[0], f"{name}: {calls[0]} calls over {gpus} GPUs"))
    return pipe
