"""One recorded call of a component as a row of tensors, however they are nested in its arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from diffopt.backends.base import BackendError, Tensors

IGNORED = ("return_dict", "generator")
"""Arguments that change nothing about the tensors a component returns."""


@dataclass(frozen=True)
class ComponentCall:
    """A call's tensors by name and in order, which of them carry the batch, and how to make the arguments of them again.

    A tensor inside an argument is named after it and its place: `added_cond_kwargs_time_ids`, `residuals_0`.
    """

    names: tuple[str, ...]
    examples: Tensors
    batched: tuple[bool, ...]
    arguments: Callable[[Tensors], dict[str, Any]]


def component_call(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> ComponentCall:
    """Take a call apart.

    Raises BackendError if it has no tensors.
    """
    given = _given(function, args, kwargs)
    paths, shape = torch.utils._pytree.tree_flatten_with_path(given)
    leaves = [value for _, value in paths]
    places = [index for index, value in enumerate(leaves) if isinstance(value, torch.Tensor)]
    if not places:
        raise BackendError("a call without tensors cannot become an engine")
    examples = tuple(leaves[index].detach().clone() for index in places)
    batch = examples[0].shape[0] if examples[0].ndim else None
    batched = tuple(batch is not None and value.ndim > 0 and value.shape[0] == batch for value in examples)

    def arguments(tensors: Tensors) -> dict[str, Any]:
        values = list(leaves)
        for index, value in zip(places, tensors, strict=True):
            values[index] = value
        made: dict[str, Any] = torch.utils._pytree.tree_unflatten(values, shape)
        return made

    return ComponentCall(tuple(_name(paths[index][0]) for index in places), examples, batched, arguments)


def tensors_of(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensors:
    """Return the tensors of a call alone, in the order of `component_call`."""
    leaves = torch.utils._pytree.tree_leaves(_given(function, args, kwargs))
    return tuple(value.detach().clone() for value in leaves if isinstance(value, torch.Tensor))


class CalledComponent(torch.nn.Module):
    """A component's method as a module: the tensors of a recorded call in, every tensor of the result out."""

    def __init__(self, component: torch.nn.Module, method: Callable[..., Any], call: ComponentCall) -> None:
        super().__init__()
        self.component = component
        self._method = method
        self._arguments = call.arguments
        named = "return_dict" in inspect.signature(method).parameters
        self._plain: dict[str, Any] = {"return_dict": False} if named else {}

    def forward(self, *inputs: torch.Tensor) -> Tensors:
        result = self._method(**self._arguments(inputs), **self._plain)
        plain = result.to_tuple() if hasattr(result, "to_tuple") else result
        return tuple(value for value in torch.utils._pytree.tree_leaves(plain) if isinstance(value, torch.Tensor))


def _given(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    signature = inspect.signature(function)
    given = dict(signature.bind(*args, **kwargs).arguments)
    for parameter in signature.parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            given.update(given.pop(parameter.name, {}))
    return {name: value for name, value in given.items() if name not in IGNORED}


def _name(path: Any) -> str:
    keys = (getattr(part, "key", getattr(part, "idx", None)) for part in path)
    return "_".join(str(key) for key in keys)
