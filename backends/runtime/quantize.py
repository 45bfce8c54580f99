"""Store a component's weights in 8 or 4 bits, or multiply in 8 bits too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from diffopt.backends.base import BackendError, Witness
from diffopt.backends.runtime.attachment import attachment, component_name

Pipe = TypeVar("Pipe")


def quantize(pipe: Pipe, component: str, *, scheme: str = "int8-weights", exclude: Sequence[str] = ()) -> Pipe:
    """Quantize the linear layers of a component (and its convolutions' weights), in place.

    scheme: `int8-weights` stores weights as 8-bit integers, one scale per output channel, and multiplies in floating
    point; `int8-dynamic` also rounds what enters a linear layer to 8 bits, one scale per row, and multiplies integers;
    `int4-weights` stores weights as 4-bit integers in groups of 32, each with a scale and a smallest value.
    exclude: layers by their names, or by what these start with, that stay as they are.
    Engines exported later keep the narrow weights. Raises BackendError for an engine, or an unknown scheme.
    """
    from diffopt.backends.runtime.int8 import SCHEMES, replace_layers, take_effect

    if scheme not in SCHEMES:
        raise BackendError(f"no quantization scheme {scheme!r}", f"there are {', '.join(SCHEMES)}")
    name, state = component_name(pipe, component), attachment(pipe)
    for earlier in ("export", "compile", "quantize"):
        if state.noted(name, earlier) or state.noted("pipeline", earlier):
            raise BackendError(f"{name}: quantize cannot follow {earlier}")
    layers, before, after = replace_layers(getattr(pipe, name), scheme, exclude=exclude)
    if not layers:
        raise BackendError(f"{name} has no layer to quantize")
    state.note(name, "quantize", scheme=scheme, **({"exclude": [*exclude]} if exclude else {}))
    detail = f"{name}: {len(layers)} layers in {scheme}, {before / 2**20:.1f} MiB of weights in {after / 2**20:.1f} MiB"
    state.witnesses.append(lambda: Witness("quantize", take_effect(layers), detail))
    return pipe
