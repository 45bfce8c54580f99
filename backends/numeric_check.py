"""Compare an engine with the torch module it was made of, at several sizes of its open dimensions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from diffopt.backends.base import JSON, BackendError, EngineOptions, Part, Run, Tensors

if TYPE_CHECKING:
    import torch

FAR = 0.05
"""Relative L2 error that no order of sums explains; merged tokens that are alike may join others."""


def compare(run: Run, part: Part) -> dict[str, JSON]:
    """Return the largest and the relative L2 error over results and sizes.

    Raises BackendError where the engine returns what is not a number though torch does not, or other shapes.
    """
    found = compare_sizes(run, part, sizes_to_check(part))
    checks: JSON = [
        {"sizes": sizes, "max_error": largest, "relative_l2_error": relative} for sizes, (largest, relative) in found
    ]
    return {
        "max_error": max(largest for _, (largest, _) in found),
        "relative_l2_error": max(relative for _, (_, relative) in found),
        **({} if part.open is None else {"checks": checks}),
    }


def refuse_far(facts: Mapping[str, JSON], options: EngineOptions, name: str) -> Mapping[str, JSON]:
    """Return the facts of an engine that computes what torch computes.

    Raises BackendError where one that rounds nothing is far off: the backend misreads something of the component.
    """
    relative = facts.get("relative_l2_error")
    exact = options.precision == "f32" and not options.dynamic_int8
    if exact and isinstance(relative, int | float) and not relative <= FAR:
        hint = "leave the component in torch, or take another backend"
        raise BackendError(f"{name}: the engine is off by {relative:.1%} from torch", hint)
    return facts


def compare_sizes(
    run: Run, part: Part, sizes: list[dict[str, int]]
) -> list[tuple[dict[str, int], tuple[float, float]]]:
    """Return the largest and the relative L2 error at each of these sizes. Raises as `compare`."""
    import torch

    found = []
    for chosen in sizes:
        inputs = resized(part, chosen)
        with torch.no_grad():
            expected = part.module(*inputs)
        found.append((chosen, error(run(inputs), expected)))
    return found


def sizes_to_check(part: Part) -> list[dict[str, int]]:
    """Return the usual sizes, and some at which every open dimension is another.

    Where a part names its open dimensions, those are the least and the greatest; else another batch.
    """
    axes = {axis.name: axis for given in part.axes() for axis in given.values()}
    usual = {name: axis.usual for name, axis in axes.items()}
    if part.open is None:
        return [usual, {name: 1 if size > 1 else 2 for name, size in usual.items()}]
    corners = ({name: axis.least for name, axis in axes.items()}, {name: axis.most for name, axis in axes.items()})
    return [usual, *(corner for corner in corners if corner != usual)]


def resized(part: Part, sizes: Mapping[str, int]) -> Tensors:
    """Return a part's example inputs with their open dimensions in these sizes: cut off, or repeated from the start."""

    def change(value: torch.Tensor, index: int) -> torch.Tensor:
        for position, axis in part.axes()[index].items():
            size, had = sizes.get(axis.name, value.shape[position]), value.shape[position]
            if size > had:
                repeats = [1] * value.ndim
                repeats[position] = -(-size // had)
                value = value.repeat(repeats)
            value = value.narrow(position, 0, size)
        return value.contiguous()

    return tuple(change(value, index) for index, value in enumerate(part.inputs))


def error(actual: Tensors, expected: Tensors) -> tuple[float, float]:
    """Return the largest absolute and the largest relative L2 difference of two results."""
    import torch

    largest, relative = 0.0, 0.0
    for one, other in zip(actual, expected, strict=True):
        if one.shape != other.shape:
            raise BackendError(f"the engine returns {tuple(one.shape)} where torch returns {tuple(other.shape)}")
        if not torch.isfinite(one).all() and torch.isfinite(other).all():
            raise BackendError("the engine returns what is not a number", "try precision f32")
        difference = one.double() - other.double()
        largest = max(largest, difference.abs().max().item())
        relative = max(relative, (difference.norm() / other.double().norm().clamp_min(1e-12)).item())
    return largest, relative
