"""Listen in on inner modules of a denoiser during a full pass, and answer for them during a shallow one."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

from diffopt.backends.base import Tensors
from diffopt.backends.runtime.denoiser_call import DenoiserModule

COMPILED = "_diffopt_compiled"
"""Where a tapped module keeps what runs in place of its forward, compiled once for all modules of its class."""


class Tap(Protocol):
    """What happens at one inner module.

    A tap keeps nothing between passes; `features` is the list that a full pass fills and a shallow pass reads.
    """

    def full(self, run: Callable[..., Any], given: dict[str, Any], features: list[torch.Tensor]) -> Any:
        """Run the module and put what is worth keeping into `features`."""

    def shallow(self, given: dict[str, Any], features: list[torch.Tensor]) -> Any:
        """Return what the module would have returned."""


class Taps:
    """The tapped modules of one denoiser. Outside of a pass each runs as it always did."""

    def __init__(self, tapped: Sequence[tuple[torch.nn.Module, Tap]], width: int) -> None:
        self.width = width
        self._mode = ""
        self._features: list[torch.Tensor] = []
        for module, tap in tapped:
            module.__dict__["forward"] = self._route(module, module.forward, tap)

    def run(self, mode: str, features: Sequence[torch.Tensor], call: Callable[[], torch.Tensor]) -> Tensors:
        """Run the denoiser in a mode, `full` or `shallow`; return its result, then the features of a full pass."""
        self._mode, self._features = mode, list(features)
        try:
            out = call()
            return (out, *self._features) if mode == "full" else (out,)
        finally:
            self._mode, self._features = "", []

    def _route(self, module: torch.nn.Module, original: Callable[..., Any], tap: Tap) -> Callable[..., Any]:
        signature = inspect.signature(original)

        @functools.wraps(original)
        def forward(*args: Any, **kwargs: Any) -> Any:
            if not self._mode:
                return module.__dict__.get(COMPILED, original)(*args, **kwargs)
            given = dict(signature.bind(*args, **kwargs).arguments)
            for name, parameter in signature.parameters.items():
                if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                    given |= given.pop(name, {})
            if self._mode == "shallow":
                return tap.shallow(given, self._features)
            run = module.__dict__.get(COMPILED, original)
            return tap.full(functools.partial(run, *args, **kwargs), given, self._features)

        return forward


class TappedFull(DenoiserModule):
    """The whole denoiser, and the features its taps keep."""

    def __init__(self, denoiser: torch.nn.Module, taps: Taps) -> None:
        super().__init__(denoiser)
        self._taps = taps

    def forward(self, *inputs: torch.Tensor) -> Tensors:
        return self._taps.run("full", (), lambda: self.run(inputs))


class TappedShallow(DenoiserModule):
    """The denoiser without what its taps answer for; the features are its last inputs."""

    def __init__(self, denoiser: torch.nn.Module, taps: Taps) -> None:
        super().__init__(denoiser)
        self._taps = taps

    def forward(self, *inputs: torch.Tensor) -> Tensors:
        count = len(self.shape.names)
        return self._taps.run("shallow", inputs[count:], lambda: self.run(inputs[:count]))
