"""Leaves: the tensor-only pieces a pipeline call is made of, each of which an engine or a compiler may take over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from diffopt.backends.base import Tensors
from diffopt.backends.runtime.denoiser_call import CallShape, DenoiserModule

_NAMES = str.maketrans({".": "_", "[": None, "]": None})
"""From names of tensors inside arguments to such as `ComponentCall` gives."""


class Leaf:
    """A tensor-only piece of a component: the torch module that defines it, and what runs it now.

    `run` starts as the module itself; `export` and `compile_component` replace it, and `export_pipeline` listens in.
    """

    def __init__(self, name: str, module: torch.nn.Module, input_names: tuple[str, ...], batched: tuple[bool, ...]):
        self.name = name
        self.module = module
        self.input_names = input_names
        self.batched = batched
        self.run: Callable[..., Tensors] = module

    def __call__(self, *inputs: torch.Tensor) -> Tensors:
        return self.run(*inputs)


class PlannedLeaf(Leaf):
    """A leaf of a step plan: it runs a denoiser whose calls may have any shape; `features` are its last inputs."""

    module: DenoiserModule

    def __init__(self, name: str, module: DenoiserModule, features: tuple[str, ...] = ()) -> None:
        super().__init__(name, module, (), ())
        self._features = features
        self.take(module.shape)

    def take(self, shape: CallShape) -> None:
        """Be ready for calls of this shape."""
        self.module.shape = shape
        self.input_names = (*(name.translate(_NAMES) for name in shape.names), *self._features)
        self.batched = (*shape.batched, *(True for _ in self._features))


class Closed(torch.nn.Module):
    """A component's method as a module: tensors by position, everything else as recorded, a tuple of tensors out."""

    def __init__(
        self, component: torch.nn.Module, method: Callable[..., Any], names: tuple[str, ...], fixed: dict[str, Any]
    ) -> None:
        super().__init__()
        self.component = component
        self._method = method
        self._names = names
        self._fixed = fixed

    def forward(self, *inputs: torch.Tensor) -> Tensors:
        result = self._method(**dict(zip(self._names, inputs, strict=True)), **self._fixed)
        values = result.to_tuple() if hasattr(result, "to_tuple") else result
        return tuple(value for value in values if isinstance(value, torch.Tensor))


def running(leaf: Leaf, run: Callable[..., Tensors]) -> Leaf:
    """Return a leaf of the same name whose module is what runs it now."""
    return Leaf(leaf.name, Running(run), leaf.input_names, leaf.batched)


class Running(torch.nn.Module):
    """A function of tensors as a module."""

    def __init__(self, run: Callable[..., Tensors]) -> None:
        super().__init__()
        self._run = run

    def forward(self, *inputs: torch.Tensor) -> Tensors:
        return self._run(*inputs)
