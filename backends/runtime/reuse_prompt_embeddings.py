"""Encode a text once, and answer later requests for it from memory."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from diffopt.backends.base import BackendError, Witness
from diffopt.backends.runtime.attachment import Attachment, attachment, component_name
from diffopt.backends.runtime.weights_mark import being_traced, weights_mark

Pipe = TypeVar("Pipe")
MEMORY = "_diffopt_prompt_memory"


def reuse_prompt_embeddings(pipe: Pipe, component: str, *, entries: int = 64) -> Pipe:
    """Answer a text encoder's calls from memory where token ids, every other argument and the weights are the same.

    entries: how many calls are remembered; the one longest unused goes first. Raises BackendError if it is so already.
    """
    name, state = component_name(pipe, component), attachment(pipe)
    encoder = getattr(pipe, name)
    if MEMORY in encoder.__dict__:
        raise BackendError(f"{name} has its prompts remembered already")
    memory = PromptMemory(encoder, state, name, entries)
    encoder.__dict__[MEMORY] = memory

    @functools.wraps(encoder.forward)
    def forward(*args: Any, **kwargs: Any) -> Any:
        return memory.forward(*args, **kwargs)

    encoder.__dict__["forward"] = forward
    state.note(name, "reuse_prompt_embeddings", entries=entries)
    state.witnesses.append(memory.witness)
    return pipe


class PromptMemory:
    """What a text encoder answered, by what it was asked."""

    def __init__(self, encoder: Any, state: Attachment, name: str, entries: int, *, marked: bool = True) -> None:
        """`marked`: an answer holds only as long as the weights are those that gave it."""
        self._marked = marked
        self.before: Callable[[], None] = lambda: None
        self._original = encoder.forward
        self._encoder = encoder
        self._state = state
        self._name = name
        self._entries = entries
        self._answers: OrderedDict[Hashable, tuple[Any, Hashable]] = OrderedDict()
        self._calls = self._hits = 0

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Take the place of the encoder's forward."""
        if being_traced() or not self._state.counting or self._encoder.training:
            return self._run(args, kwargs)
        try:
            mark = weights_mark([self._encoder]) if self._marked else None
            asked = (_key(args), _key(sorted(kwargs.items())), mark)
        except TypeError:
            return self._run(args, kwargs)
        self._calls += 1
        found = self._answers.get(asked)
        if found is not None and found[1] == _mark(found[0]):
            self._answers.move_to_end(asked)
            self._hits += 1
            return found[0]
        answer = self._run(args, kwargs)
        self._answers[asked] = (answer, _mark(answer))
        self._answers.move_to_end(asked)
        if len(self._answers) > self._entries:
            self._answers.popitem(last=False)
        return answer

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.before()
        return self._original(*args, **kwargs)

    def witness(self) -> Witness:
        detail = f"{self._name}: {self._hits} of {self._calls} texts answered from memory"
        return Witness("reuse_prompt_embeddings", self._hits, detail)


def _key(value: Any) -> Hashable:
    """Return what tells a value from others; raises TypeError for what cannot be told apart by looking at it."""
    import torch

    if isinstance(value, torch.Tensor):
        if value.is_floating_point() or value.requires_grad:
            raise TypeError("embeddings are no text")
        return (str(value.dtype), str(value.device), tuple(value.shape), value.cpu().contiguous().numpy().tobytes())
    if isinstance(value, list | tuple):
        return tuple(map(_key, value))
    if value is None or isinstance(value, bool | int | float | str):
        return (type(value).__name__, value)
    raise TypeError(type(value).__name__)


def _mark(answer: Any) -> Hashable:
    """Return a mark that changes when someone writes into the answer."""
    import torch

    leaves = torch.utils._pytree.tree_leaves(dict(answer) if hasattr(answer, "keys") else answer)
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
    return tuple(-1 if tensor.is_inference() else tensor._version for tensor in tensors)
