"""Layers with 8- or 4-bit weights that compute the same in eager torch, when traced, and in an engine made of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from diffopt.backends.runtime.int4 import Int4Weight, being_exported, fits

SCHEMES = ("int8-weights", "int8-dynamic", "int4-weights")

SMALLEST = 1024
"""Layers with fewer weights are left alone: there is nothing to gain."""

TIME = "time_emb"
"""Layers on the time embedding are left alone too: they work on one row, and fold into constants in an engine."""


class Int8Weight(nn.Module):
    """A layer's weight as 8-bit integers with one scale per output channel."""

    values: torch.Tensor
    scale: torch.Tensor

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        rows = weight.detach().float().flatten(1)
        scale = rows.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / 127
        shape = (-1, *(1,) * (weight.ndim - 1))
        self.register_buffer("values", (rows / scale).round().clamp(-127, 127).to(torch.int8).view(weight.shape))
        self.register_buffer("scale", scale.view(shape).to(weight.dtype))

    def widened(self) -> torch.Tensor:
        """Return the weight in floating point."""
        return self.values.to(self.scale.dtype) * self.scale

    @property
    def bytes(self) -> int:
        """How much memory it takes."""
        return _bytes(self.values) + _bytes(self.scale)


class NarrowLinear(nn.Linear):
    """A linear layer with 8- or 4-bit weights; `dynamic` ones multiply 8-bit integers."""

    def __init__(self, layer: nn.Linear, stored: Int8Weight | Int4Weight, *, dynamic: bool) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.bias = layer.bias
        self.stored = stored
        self.dynamic = dynamic

    @property
    def weight(self) -> torch.Tensor:  # type: ignore[override]
        return self.stored.widened()

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.dynamic or being_exported():
            return nn.functional.linear(input, self.weight, self.bias)
        rows = input.reshape(-1, self.in_features)
        scale = rows.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / 127
        sums = torch._int_mm((rows / scale).round().to(torch.int8), self.stored.values.t())
        out = (sums * (scale * self.stored.scale.view(1, -1))).view(*input.shape[:-1], self.out_features)
        return out if self.bias is None else out + self.bias


class NarrowConv2d(nn.Conv2d):
    """A convolution with 8- or 4-bit weights."""

    def __init__(self, layer: nn.Conv2d, stored: Int8Weight | Int4Weight) -> None:
        nn.Module.__init__(self)
        names = (
            "in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode",
            "transposed", "output_padding", "_reversed_padding_repeated_twice",
        )  # fmt: skip
        for name in names:
            setattr(self, name, getattr(layer, name))
        self.bias = layer.bias
        self.stored = stored

    @property
    def weight(self) -> torch.Tensor:  # type: ignore[override]
        return self.stored.widened()


def replace_layers(component: nn.Module, scheme: str, *, exclude: Sequence[str] = ()) -> tuple[list[Any], int, int]:
    """Replace layers in place; return the new ones, and the bytes of their weights before and after.

    scheme: one of `SCHEMES`.
    exclude: layers that stay, by their names or the parts these start with.
    """
    layers: list[Any] = []
    before = after = 0
    for path, layer, made in quantizable(component, scheme):
        if any(path == name or path.startswith(f"{name}.") for name in exclude):
            continue
        put(component, path, made)
        layers.append(made)
        before += _bytes(layer.weight)
        after += made.stored.bytes
    return layers, before, after


def quantizable(component: nn.Module, scheme: str) -> Iterator[tuple[str, Any, Any]]:
    """Yield the name of each layer that is worth it, the layer, and what would take its place."""
    for path, layer in list(component.named_modules()):
        made = None if TIME in path or not path else _quantized(layer, scheme)
        if made is not None:
            made.train(layer.training)
            yield path, layer, made


def put(component: nn.Module, path: str, layer: nn.Module) -> None:
    """Put a layer in the place that a name says."""
    parent, _, name = path.rpartition(".")
    setattr(component.get_submodule(parent), name, layer)


def take_effect(layers: list[Any]) -> int:
    """Return how many of the layers still hold narrow weights."""
    return sum(layer.stored.values.element_size() == 1 for layer in layers)


def _bytes(value: Any) -> int:
    return int(value.numel() * value.element_size())


def _quantized(layer: nn.Module, scheme: str) -> NarrowLinear | NarrowConv2d | None:
    if not isinstance(layer, nn.Linear | nn.Conv2d) or layer.weight.numel() < SMALLEST:
        return None
    four = scheme == "int4-weights" and fits(layer.weight)
    if type(layer) is nn.Linear:
        stored = Int4Weight(layer.weight) if four else Int8Weight(layer.weight)
        return NarrowLinear(layer, stored, dynamic=scheme == "int8-dynamic")
    if type(layer) is nn.Conv2d:
        return NarrowConv2d(layer, Int4Weight(layer.weight) if four else Int8Weight(layer.weight))
    return None
