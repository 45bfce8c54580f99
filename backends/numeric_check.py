"""Compare an engine with the torch module it was made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffopt.backends.base import JSON, BackendError, Part, Run, Tensors

if TYPE_CHECKING:
    import torch


def compare(run: Run, part: Part) -> dict[str, JSON]:
    """Return the largest and the relative L2 error over results and batch sizes.

    Raises BackendError where the engine returns what is not a number though torch does not, or other shapes.
    """
    import torch

    largest, relative = 0.0, 0.0
    for inputs in (part.inputs, _other_batch(part)):
        with torch.no_grad():
            expected = part.module(*inputs)
        largest, relative = (
            max(largest, error(run(inputs), expected)[0]),
            max(relative, error(run(inputs), expected)[1]),
        )
    return {"max_error": largest, "relative_l2_error": relative}


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


def _other_batch(part: Part) -> Tensors:
    """Return the inputs at batch 1 where they came in a batch, or doubled where they came alone."""
    batch = next((v.shape[0] for v, b in zip(part.inputs, part.batched, strict=True) if b), 1)

    def change(value: torch.Tensor) -> torch.Tensor:
        return value[:1] if batch > 1 else value.repeat(2, *(1,) * (value.ndim - 1))

    return tuple(change(v) if b else v for v, b in zip(part.inputs, part.batched, strict=True))
