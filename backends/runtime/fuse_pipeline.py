"""Answer requests with one function of torch: from token ids and noise to the picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from diffopt.backends.base import BackendError, Tensors
from diffopt.backends.runtime.attachment import attachment
from diffopt.backends.runtime.export_pipeline import TOLERANCE

Pipe = TypeVar("Pipe")
FUSED = "_diffopt_fused"
"""Where the pipeline keeps the program: `graph` is a module of torch that `torch.export` takes."""


def fuse_pipeline(
    pipe: Pipe,
    *,
    steps: int,
    guidance: float,
    height: int,
    width: int,
    negative_prompt: str | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> Pipe:
    """Trace a call of these settings into one graph, and answer calls of these settings by it; others run as before.

    Text encoders, denoiser and decoder stay calls in the graph, of whatever runs them now: torch, quantized layers, engines.
    arguments: what else those calls are given.
    Raises BackendError if the pipeline makes more than pictures of prompts, is compiled, or does what cannot be traced.
    """
    import torch

    from diffopt.backends.runtime.engine_request import EngineRequests
    from diffopt.backends.runtime.fold import Fold, Settings, folded_parts, refuse_fold

    refuse_fold(pipe)
    state = attachment(pipe)
    if state.noted("pipeline", "export") or state.noted("pipeline", "fuse_pipeline"):
        raise BackendError("the pipeline is one function already")
    for name in folded_parts(pipe):
        if state.noted(name, "compile"):
            raise BackendError(f"{name} is compiled: its code is not traced through")
        if {parameter.dtype for parameter in getattr(pipe, name).parameters()} - {torch.float32, torch.int8}:
            raise BackendError(f"{name} is not in float32", "one function is made of float32 weights alone")
    settings = Settings(steps, guidance, height, width, negative_prompt, arguments or {})
    fold = Fold(pipe, settings, outlined=True)
    program, interface = fold.program()

    def run(inputs: Tensors) -> Tensors:
        with torch.no_grad():
            found: Tensors = program.graph(*inputs)
        return found

    _, error = fold.error_of(run, interface)
    if not error <= TOLERANCE["f32"]:
        raise BackendError(f"the function is off by {error:.1%} from the pipeline it was traced from")
    requests = EngineRequests(pipe, run, settings, interface, "fuse_pipeline")
    state.layers.append(requests.route)
    state.witnesses.append(requests.witness)
    state.note("pipeline", "fuse_pipeline")
    pipe.__dict__[FUSED] = program
    return pipe
