"""Project the prompt to keys and values once a request, not once a step."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from diffopt.backends.base import BackendError, Witness
from diffopt.backends.runtime.attachment import Attachment, Call, Proceed, attachment, component_name
from diffopt.backends.runtime.weights_mark import being_traced

Pipe = TypeVar("Pipe")
HOISTED = "_diffopt_hoisted"
PROJECTIONS = ("to_k", "to_v", "to_kv", "add_k_proj", "add_v_proj")
ROOTS = ("caption_projection", "encoder_hid_proj", "context_embedder")
"""Projections of the prompt ahead of all blocks: they return the very tensor again, so that what follows finds it."""
KEPT = 3
"""Texts kept at once: the whole batch, and its halves where guidance ends midway."""


def hoist_cross_attention(pipe: Pipe, component: str) -> Pipe:
    """Keep what cross-attention makes of the prompt from step to step of a request; bit for bit the same.

    Raises BackendError if the component has no cross-attention, or was compiled, exported or hoisted already.
    """
    name, state = component_name(pipe, component), attachment(pipe)
    denoiser = getattr(pipe, name)
    if HOISTED in denoiser.__dict__:
        raise BackendError(f"{name}: its cross-attention is hoisted already")
    for earlier in ("export", "compile"):
        if state.noted(name, earlier) or state.noted("pipeline", earlier):
            raise BackendError(f"{name}: {earlier} was applied already, its code computes the prompt's part itself")
    found = [
        getattr(part, projection)
        for part in denoiser.modules()
        if getattr(part, "is_cross_attention", False)
        for projection in PROJECTIONS
        if getattr(part, projection, None) is not None
    ]
    if not found:
        raise BackendError(f"{name} has no cross-attention whose prompt stays the same from step to step")
    found += [getattr(denoiser, root) for root in ROOTS if getattr(denoiser, root, None) is not None]
    hoisted = Hoisted(state, name, denoiser)
    denoiser.__dict__[HOISTED] = hoisted
    for projection in found:
        projection.__dict__["forward"] = hoisted.remembering(projection.forward)
    state.layers.append(hoisted.request)
    state.note(name, "hoist_cross_attention")
    state.witnesses.append(hoisted.witness)
    return pipe


class Hoisted:
    """What each projection made of the prompt in the request that runs. Empty between requests."""

    def __init__(self, state: Attachment, name: str, denoiser: Any) -> None:
        self._state = state
        self._name = name
        self._inside = False
        self._memories: list[OrderedDict[Hashable, tuple[Any, Any]]] = []
        self._calls = self._hits = 0

    def request(self, proceed: Proceed, call: Call) -> Any:
        """Run one pipeline call, and leave nothing behind, also when it raises."""
        self._forget()
        self._inside = True
        try:
            return proceed(call)
        finally:
            self._inside = False
            self._forget()

    def remembering(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Return what takes the place of a projection's forward."""
        memory: OrderedDict[Hashable, tuple[Any, Any]] = OrderedDict()
        self._memories.append(memory)

        @functools.wraps(original)
        def forward(*args: Any, **kwargs: Any) -> Any:
            text = args[0] if len(args) == 1 and not kwargs else None
            if not self._inside or being_traced() or text is None or text.is_inference() or text.requires_grad:
                return original(*args, **kwargs)
            asked = (text.data_ptr(), text.shape, text.stride(), text.dtype, text._version)
            self._calls += self._state.counting
            if asked in memory:
                self._hits += self._state.counting
                memory.move_to_end(asked)
                return memory[asked][1]
            # The text is kept too: as long as it lives, nothing else lies where it does.
            memory[asked] = (text, original(text))
            if len(memory) > KEPT:
                memory.popitem(last=False)
            return memory[asked][1]

        return forward

    def witness(self) -> Witness:
        detail = f"{self._name}: {self._hits} of {self._calls} projections of the prompt not computed again"
        return Witness("hoist_cross_attention", self._hits, detail)

    def _forget(self) -> None:
        for memory in self._memories:
            memory.clear()
