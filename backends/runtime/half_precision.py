"""Keep a component's weights in 16 bits, and compute in them, with a way back where numbers overflow."""

from __future__ import annotations

import functools
from typing import Any, TypeVar

from diffopt.backends.base import BackendError, Witness
from diffopt.backends.runtime.attachment import Attachment, attachment, component_name

Pipe = TypeVar("Pipe")
METHODS = {"vae": "decode"}
DTYPES = ("bfloat16", "float16")


def half_precision(pipe: Pipe, component: str, *, dtype: str = "bfloat16") -> Pipe:
    """Cast a component to 16 bits; what enters and leaves it keeps the pipeline's own dtype.

    An output that is not finite is computed again in float32, with the weights as rounded, and from then on the
    component stays there.
    Raises BackendError for another dtype, an engine, or a component that is not in float32.
    """
    import torch

    if dtype not in DTYPES:
        raise BackendError(f"no 16-bit numbers {dtype!r}", f"there are {', '.join(DTYPES)}")
    name, state = component_name(pipe, component), attachment(pipe)
    for earlier in ("export", "compile", "quantize"):
        if state.noted(name, earlier) or state.noted("pipeline", earlier):
            raise BackendError(f"{name}: half_precision cannot follow {earlier}")
    module = getattr(pipe, name)
    if module.dtype != torch.float32:
        raise BackendError(f"{name} is in {module.dtype} already")
    method = METHODS.get(name, "forward")
    most = torch.finfo(getattr(torch, dtype)).max
    for weights, value in module.named_parameters():
        if value.numel() and value.abs().max() > most:
            raise BackendError(f"{name}: weights {weights} do not fit into {dtype}", "bfloat16 holds them")
    cast = Cast(state, name, module, method, getattr(torch, dtype))

    @functools.wraps(getattr(module, method))
    def run(*args: Any, **kwargs: Any) -> Any:
        return cast.run(*args, **kwargs)

    module.__dict__[method] = run
    state.note(name, "half_precision", dtype=dtype)
    state.witnesses.append(cast.witness)
    return pipe


class Cast:
    """A component in 16 bits, behind a door that casts."""

    def __init__(self, state: Attachment, name: str, module: Any, method: str, dtype: Any) -> None:
        self._original = getattr(module, method)
        self._module = module
        self._state = state
        self._name = name
        self._dtype = dtype
        self._calls = self._overflows = 0
        self._weights = sum(parameter.is_floating_point() for parameter in module.parameters())
        _cast(module, dtype)

    def run(self, *args: Any, **kwargs: Any) -> Any:
        import torch

        if self._module.dtype == torch.float32:
            return self._original(*args, **kwargs)
        self._calls += self._state.counting
        narrow_args, narrow_kwargs = _floats((args, kwargs), self._dtype)
        out = _floats(self._original(*narrow_args, **narrow_kwargs), torch.float32)
        if _finite(out):
            return out
        self._overflows += 1
        self._state.say_once(f"{self._name} overflows in {str(self._dtype)[6:]}: it goes on in float32")
        _cast(self._module, torch.float32)
        return self._original(*args, **kwargs)

    def witness(self) -> Witness:
        detail = f"{self._name}: {self._weights} weights, {self._calls} calls in {str(self._dtype)[6:]}"
        overflow = f", {self._overflows} overflows" if self._overflows else ""
        return Witness("half_precision", self._calls, detail + overflow)


def _cast(module: Any, dtype: Any) -> None:
    """Cast a component, but for the parts that its class keeps in float32.

    Buffers are put in anew: one that is a view would keep a base of the old dtype, which `torch.compile` stumbles over.
    """
    wide = set(getattr(module, "_keep_in_fp32_modules", None) or ())
    for path, part in module.named_modules():
        for key, value in [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]:
            if not value.is_floating_point() or {*path.split("."), key} & wide:
                continue
            if key in part._buffers:
                part._buffers[key] = value.to(dtype)
            else:
                value.data = value.data.to(dtype)


def _floats(value: Any, dtype: Any) -> Any:
    import torch

    def cast(leaf: torch.Tensor) -> torch.Tensor:
        return leaf.to(dtype) if leaf.is_floating_point() else leaf

    return torch.utils._pytree.tree_map_only(torch.Tensor, cast, value)


def _finite(value: Any) -> bool:
    import torch

    leaves = torch.utils._pytree.tree_leaves(value)
    return all(bool(leaf.isfinite().all()) for leaf in leaves if isinstance(leaf, torch.Tensor))
