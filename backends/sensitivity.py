"""Measure what narrowing each layer alone does to a denoiser, in one recorded run, and choose under an error budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from diffopt.backends.base import BackendError
from diffopt.backends.runtime.int8 import put, quantizable

Call = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Sensitivity:
    """What one layer in few bits does.

    error: L2 distance of the denoiser's output from that in full precision, relative to its size, over recorded calls.
    saved: bytes of weights less.
    """

    layer: str
    error: float
    saved: int


@dataclass(frozen=True)
class Choice:
    """Layers that stay as they are, and the error of the denoiser with all others narrowed, as it was measured."""

    excluded: tuple[str, ...]
    error: float


def record_calls(pipe: Any, run: Callable[[], object], component: str, count: int) -> list[Call]:
    """Return `count` calls of the denoiser, spread evenly over the steps of one run.

    Raises BackendError if the run never calls it.
    """
    denoiser, seen = getattr(pipe, component), list[Call]()
    original = denoiser.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        seen.append(torch.utils._pytree.tree_map_only(torch.Tensor, torch.clone, (args, kwargs)))
        return original(*args, **kwargs)

    denoiser.__dict__["forward"] = forward
    try:
        with torch.no_grad():
            run()
    finally:
        del denoiser.__dict__["forward"]
    if not seen:
        raise BackendError(f"a run of {type(pipe).__name__} does not call {component}")
    places = {round(index * (len(seen) - 1) / max(count - 1, 1)) for index in range(count)}
    return [seen[place] for place in sorted(places)]


def measure_sensitivity(denoiser: torch.nn.Module, calls: Sequence[Call], scheme: str) -> list[Sensitivity]:
    """Return what each layer does alone; the denoiser is left as it was."""
    expected = _outputs(denoiser, calls)
    found = []
    for path, layer, made in quantizable(denoiser, scheme):
        put(denoiser, path, made)
        try:
            error = _distance(_outputs(denoiser, calls), expected)
        finally:
            put(denoiser, path, layer)
        saved = layer.weight.numel() * layer.weight.element_size() - made.stored.bytes
        found.append(Sensitivity(path, error, saved))
    return found


def choose(denoiser: torch.nn.Module, calls: Sequence[Call], budget: float, scheme: str) -> Choice:
    """Return which layers to leave so that the denoiser's error, with all others narrowed by a scheme, stays below `budget`.

    Greedy by error for each byte saved, errors of layers added as squares; then all that were chosen are measured
    together, and the one that costs most is left until they hold.
    """
    found = measure_sensitivity(denoiser, calls, scheme)
    order = sorted(found, key=lambda layer: layer.error**2 / layer.saved)
    narrowed, squares = list[Sensitivity](), 0.0
    for layer in order:
        if squares + layer.error**2 > budget**2:
            break
        squares += layer.error**2
        narrowed.append(layer)
    expected = _outputs(denoiser, calls)
    while narrowed:
        error = _joint(denoiser, calls, expected, {layer.layer for layer in narrowed}, scheme)
        if error <= budget:
            break
        narrowed.pop()
    else:
        raise BackendError(f"no layer can be narrowed within an error of {budget:g}", "ask for a larger one")
    kept = {layer.layer for layer in narrowed}
    return Choice(tuple(layer.layer for layer in found if layer.layer not in kept), error)


def _joint(
    denoiser: torch.nn.Module,
    calls: Sequence[Call],
    expected: Sequence[torch.Tensor],
    names: set[str],
    scheme: str,
) -> float:
    replaced = [entry for entry in quantizable(denoiser, scheme) if entry[0] in names]
    for path, _, made in replaced:
        put(denoiser, path, made)
    try:
        return _distance(_outputs(denoiser, calls), expected)
    finally:
        for path, layer, _ in replaced:
            put(denoiser, path, layer)


def _outputs(denoiser: torch.nn.Module, calls: Sequence[Call]) -> list[torch.Tensor]:
    with torch.no_grad():
        return [denoiser(*args, **{**kwargs, "return_dict": False})[0] for args, kwargs in calls]


def _distance(found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> float:
    missed = sum(float((one - other).pow(2).sum()) for one, other in zip(found, expected, strict=True))
    return float((missed / sum(float(other.pow(2).sum()) for other in expected)) ** 0.5)
