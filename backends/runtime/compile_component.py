"""Compile a component with torch.compile."""

from __future__ import annotations

import functools
from typing import Any, TypeVar

from diffopt.backends.base import BackendError, Witness
from diffopt.backends.runtime.attachment import attachment, component_name
from diffopt.backends.runtime.export import METHODS
from diffopt.backends.runtime.step_plan import PLAN

Pipe = TypeVar("Pipe")
GRAPHS = ("reduce-overhead", "max-autotune")
"""Modes that record CUDA graphs."""


def compile_component(pipe: Pipe, component: str, *, mode: str = "default", freezing: bool = False) -> Pipe:
    """Compile what the pipeline calls of a component; the first call of each input size takes the time.

    freezing: take weights for constants, so that they are laid out for the processor once; they must not change after.
    Raises BackendError if the component is an engine already.
    """
    import torch

    name, state = component_name(pipe, component), attachment(pipe)
    for earlier in ("export", "compile"):
        if state.noted(name, earlier) or state.noted("pipeline", earlier):
            raise BackendError(f"{name}: {earlier} was applied already, there is no torch code left to compile")
    how: dict[str, Any] = {"options": {"freezing": True}} if freezing else {"mode": mode}
    module = getattr(pipe, name)
    calls = [0]
    graphs = mode in GRAPHS and module.device.type == "cuda"

    def counted(run: Any) -> Any:
        @functools.wraps(run)
        def call(*args: Any, **kwargs: Any) -> Any:
            calls[0] += 1
            if not graphs:
                return run(*args, **kwargs)
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
            # A graph writes into the same memory each time, and a cache or a multistep solver keeps what it is given.
            return torch.utils._pytree.tree_map_only(torch.Tensor, torch.clone, run(*args, **kwargs))

        return call

    plan = module.__dict__.get(PLAN)
    if plan is None:
        method = METHODS.get(name, "forward")
        module.__dict__[method] = counted(torch.compile(getattr(module, method), **how))
    else:
        for leaf in plan.leaves.values():
            leaf.run = counted(torch.compile(leaf.module, **how))
    state.note(name, "compile", mode=mode, freezing=freezing)
    state.witnesses.append(lambda: Witness("compile", calls[0], f"{name}: {calls[0]} compiled calls"))
    return pipe
