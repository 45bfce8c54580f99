"""Record what a component is called with in a real pipeline call, and recognise such calls later."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from diffopt.backends.base import BackendError, Tensors
from diffopt.backends.component_call import ComponentCall, asks_for_fields, take_apart
from diffopt.backends.runtime.attachment import Attachment, attachment
from diffopt.backends.runtime.replaced import replaced


class _Seen(Exception):
    """Ends a recording call as soon as everything was seen."""


@dataclass(frozen=True)
class Matched:
    """A call an engine can take: its tensors, and whether the caller wants them in a model output class."""

    tensors: Tensors
    return_dict: bool


@dataclass(frozen=True)
class Envelope:
    """The calls an engine can take: like one that was recorded in all but what its tensors hold, and their batch."""

    signature: inspect.Signature
    call: ComponentCall

    def match(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Matched | str:
        """Return the tensors of a call in the engine's order, or why the engine cannot take it."""
        given = take_apart(self.signature, args, kwargs)
        found = dict(zip(given.names, given.examples, strict=True))
        own, tensors = self.call, list[torch.Tensor]()
        for name, example, batched in zip(own.names, own.examples, own.batched, strict=True):
            value = found.pop(name, None)
            if value is None:
                return f"{name} is no tensor"
            start = 1 if batched else 0
            if value.shape[start:] != example.shape[start:] or value.ndim != example.ndim:
                return f"{name} is of size {tuple(value.shape)}, the engine of {tuple(example.shape)}"
            if value.dtype != example.dtype or value.device != example.device:
                return f"{name} is {value.dtype} on {value.device}, the engine takes {example.dtype}"
            tensors.append(value)
        for name in [*found, *own.fixed, *given.fixed]:
            if name in found or not _same(own.fixed.get(name), given.fixed.get(name)):
                return f"{name} is not what the engine was made for"
        return Matched(tuple(tensors), return_dict=asks_for_fields(self.signature, args, kwargs))


def record(
    pipe: Any, watched: dict[str, str], *, size: dict[str, Any]
) -> dict[str, tuple[tuple[Any, ...], dict[str, Any]]]:
    """Run a one-step pipeline call and return the first arguments of each watched component's method.

    watched: component name to method name. size: height, width and other arguments of the call, where they are not the pipeline's own.
    Raises BackendError if the pipeline does not call one of them.
    """
    seen: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}
    state = attachment(pipe)
    arguments = {**_plain_arguments(state), **size}
    with contextlib.ExitStack() as stack:
        for name, method in watched.items():
            stack.enter_context(_watch(getattr(pipe, name), method, name, seen, len(watched)))
        stack.enter_context(quiet(pipe))
        stack.enter_context(state.looking())
        with contextlib.suppress(_Seen), refusing(state, arguments):
            pipe(**arguments, generator=torch.Generator().manual_seed(0))
    missing = [name for name in watched if name not in seen]
    if missing:
        raise BackendError(f"a call of {type(pipe).__name__} does not use {missing[0]}")
    return seen


@contextlib.contextmanager
def refusing(state: Attachment, arguments: Mapping[str, Any]) -> Iterator[None]:
    """Say in one line what a pipeline has against a call that diffopt makes of it."""
    try:
        yield
    except (ValueError, TypeError) as error:
        given = ", ".join(
            f"{name}={value!r}" for name, value in arguments.items() if isinstance(value, int | float | str)
        )
        raise BackendError(f"{state.pipeline_class.__name__}({given}) fails: {error}") from error


@contextlib.contextmanager
def quiet(pipe: Any) -> Iterator[None]:
    """Hide the pipeline's progress bar for a while."""
    had = pipe.__dict__.get("_progress_bar_config") or {}
    with replaced(pipe, _progress_bar_config={**had, "disable": True}):
        yield


def _plain_arguments(state: Attachment) -> dict[str, Any]:
    chosen: dict[str, Any] = {"prompt": "a", "class_labels": [0], "num_inference_steps": 1, "output_type": "pt"}
    return {name: value for name, value in chosen.items() if name in state.parameters}


@contextlib.contextmanager
def _watch(component: Any, method: str, name: str, seen: dict[str, Any], enough: int) -> Iterator[None]:
    original = getattr(component, method)

    def watching(*args: Any, **kwargs: Any) -> Any:
        if name not in seen:
            seen[name] = (args, kwargs)
            if len(seen) == enough:
                raise _Seen
        return original(*args, **kwargs)

    with replaced(component, **{method: watching}):
        yield


def _same(one: Any, other: Any) -> bool:
    plain = (bool, int, float, str, type(None))
    return one is other or (isinstance(one, plain) and isinstance(other, plain) and one == other)
