"""One recorded call of a component as a row of tensors, however they are nested in its arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from diffopt.backends.base import BackendError, Tensors

IGNORED = ("return_dict", "generator")
"""Arguments that change nothing about the tensors a component returns."""


@dataclass(frozen=True)
class ComponentCall:
    """A call's tensors by name and in order, which of them carry the batch, and how to make the arguments of them again.

    `fixed` is all else it was given, by name. What stands inside an argument is named after it and its place:
    `added_cond_kwargs_time_ids`, `residuals_0`.
    """

    names: tuple[str, ...]
    examples: Tensors
    batched: tuple[bool, ...]
    arguments: Callable[[Tensors], dict[str, Any]]
    fixed: Mapping[str, Any]


def component_call(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> ComponentCall:
    """Take a call apart; its tensors are copied.

    Raises BackendError if it has no tensors.
    """
    found = take_apart(inspect.signature(function), args, kwargs)
    if not found.examples:
        raise BackendError("a call without tensors cannot become an engine")
    return replace(found, examples=tuple(value.detach().clone() for value in found.examples))


def take_apart(signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ComponentCall:
    """Take a call of such a function apart; its tensors are those that were given."""
    given = _given(signature, args, kwargs)
    names, tensors = list[str](), list[torch.Tensor]()
    fixed, nested = dict[str, Any](), dict[str, tuple[list[Any], Any]]()
    for name, value in given.items():
        if isinstance(value, torch.Tensor):
            names.append(name)
            tensors.append(value)
        elif value is None or isinstance(value, bool | int | float | str):
            fixed[name] = value
        else:
            paths, shape = torch.utils._pytree.tree_flatten_with_path(value)
            nested[name] = ([leaf for _, leaf in paths], shape)
            for path, leaf in paths:
                if isinstance(leaf, torch.Tensor):
                    names.append(_name(name, path))
                    tensors.append(leaf)
                else:
                    fixed[_name(name, path)] = leaf
    batch = tensors[0].shape[0] if tensors and tensors[0].ndim else None
    batched = tuple(batch is not None and value.ndim > 0 and value.shape[0] == batch for value in tensors)

    def arguments(tensors: Tensors) -> dict[str, Any]:
        left, made = iter(tensors), dict[str, Any]()
        for name, value in given.items():
            if name in nested:
                leaves, shape = nested[name]
                values = [next(left) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
                made[name] = torch.utils._pytree.tree_unflatten(values, shape)
            else:
                made[name] = next(left) if isinstance(value, torch.Tensor) else value
        return made

    return ComponentCall(tuple(names), tuple(tensors), batched, arguments, fixed)


def take_result_apart(result: Any) -> tuple[Tensors, Callable[[Tensors], Any]]:
    """Return every tensor of a result, and what makes such a result of tensors again."""
    leaves, shape = torch.utils._pytree.tree_flatten(result)
    places = [index for index, value in enumerate(leaves) if isinstance(value, torch.Tensor)]

    def made(tensors: Tensors) -> Any:
        values = list(leaves)
        for index, value in zip(places, tensors, strict=True):
            values[index] = value
        return torch.utils._pytree.tree_unflatten(values, shape)

    return tuple(leaves[index] for index in places), made


def tensors_of(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensors:
    """Return the tensors of a call alone, in the order of `component_call`."""
    found = take_apart(inspect.signature(function), args, kwargs)
    return tuple(value.detach().clone() for value in found.examples)


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


def asks_for_fields(signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Tell whether a call wants its results in a model output class."""
    if "return_dict" in kwargs or not args:
        return kwargs.get("return_dict") is not False
    return signature.bind(*args, **kwargs).arguments.get("return_dict") is not False


def _given(signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    given = dict(signature.bind(*args, **kwargs).arguments)
    for parameter in signature.parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            given.update(given.pop(parameter.name, {}))
    return {name: value for name, value in given.items() if name not in IGNORED}


def _name(argument: str, path: Any) -> str:
    keys = (getattr(part, "key", getattr(part, "idx", None)) for part in path)
    return "_".join(map(str, (argument, *keys)))
