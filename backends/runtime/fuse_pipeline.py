"""Answer requests with one function of torch: from token ids and noise to the picture."""

from __future__ import annotations

from typing import Any, TypeVar

from diffopt.backends.base import BackendError, Tensors
from diffopt.backends.runtime.attachment import attachment
from diffopt.backends.runtime.export_pipeline import COMPONENTS, Fold, refuse_fold

Pipe = TypeVar("Pipe")
FUSED = "_diffopt_fused"
"""Where the pipeline keeps the program: `graph` is a module of torch that `torch.export` takes."""


def fuse_pipeline(
    pipe: Pipe, *, steps: int, guidance: float, height: int, width: int, negative_prompt: str = ""
) -> Pipe:
    """Trace a call of these settings into one graph, and answer calls of these settings by it; others run as before.

    Text encoder, denoiser and decoder stay calls in the graph, of whatever runs them now: torch, quantized layers, engines.
    Raises BackendError if the pipeline is of another class, compiled, or does what cannot be traced.
    """
    import torch

    from diffopt.backends.runtime.engine_request import EngineRequests

    refuse_fold(pipe)
    state = attachment(pipe)
    parts: dict[str, Any] = {name: getattr(pipe, name) for name in COMPONENTS}
    if state.noted("pipeline", "export") or state.noted("pipeline", "fuse_pipeline"):
        raise BackendError("the pipeline is one function already")
    for name, part in parts.items():
        if state.noted(name, "compile"):
            raise BackendError(f"{name} is compiled: its code is not traced through")
        if {parameter.dtype for parameter in part.parameters()} - {torch.float32, torch.int8}:
            raise BackendError(f"{name} is not in float32", "one function is made of float32 weights alone")
    fold = Fold(
        pipe,
        steps=steps,
        guidance=guidance,
        height=height,
        width=width,
        negative_prompt=negative_prompt,
        outlined=True,
    )
    program, expected = fold.program()

    def run(inputs: Tensors) -> Tensors:
        with torch.no_grad():
            found: Tensors = program.graph(*inputs)
        return found

    with state.looking():
        (made,) = run(program.inputs)
    error = float((made - expected).norm() / expected.norm())
    if not error <= 1e-2:
        raise BackendError(f"the function is off by {error:.1%} from the pipeline it was traced from")
    requests = EngineRequests(pipe, run, steps, guidance, height, width, negative_prompt, "fuse_pipeline")
    state.layers.append(requests.route)
    state.witnesses.append(requests.witness)
    state.note("pipeline", "fuse_pipeline")
    pipe.__dict__[FUSED] = program
    return pipe
