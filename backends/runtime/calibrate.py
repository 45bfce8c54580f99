"""Record what a denoiser is called with over the steps of requests, for an engine that is quantized by it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from diffopt.backends.base import BackendError
from diffopt.backends.nncf_engine import MODES
from diffopt.backends.runtime.attachment import attachment, component_name

Pipe = TypeVar("Pipe")
CALIBRATION = "_diffopt_calibration"
TEXTS = (
    "a red apple on a wooden table",
    "a city street at night in the rain",
    "a portrait of an old man",
    "green hills under a blue sky",
)
"""Prompts of the recorded requests, where none are given."""


@dataclass(frozen=True)
class Calibration:
    """How an engine of a component is to be quantized, and by which calls: arguments by position and by name."""

    mode: str
    calls: tuple[tuple[tuple[Any, ...], dict[str, Any]], ...]


def calibrate(pipe: Pipe, component: str, *, mode: str = "hybrid", samples: int = 32, request_steps: int) -> Pipe:
    """Run requests of `request_steps` steps and keep `samples` calls of the component, spread over the steps of each.

    mode: what NNCF makes of the engine that `export` builds later: `weights`, `hybrid` or `full` (see `nncf_engine`).
    Raises BackendError if the component is quantized, compiled or exported already.
    """
    import torch

    from diffopt.backends.runtime.recording import quiet
    from diffopt.backends.sensitivity import record_calls

    name, state = component_name(pipe, component), attachment(pipe)
    live: Any = pipe
    if mode not in MODES:
        raise BackendError(f"no mode {mode!r} of quantization", f"there are {', '.join(MODES)}")
    for earlier in ("quantize", "export", "compile", "calibrate"):
        if state.noted(name, earlier):
            raise BackendError(f"{name}: calibrate cannot follow {earlier}")
    each = -(-samples // len(TEXTS))
    calls: list[Any] = []
    for index, text in enumerate(TEXTS):
        given = {"prompt": text, "num_inference_steps": request_steps, "output_type": "latent"}
        generator = torch.Generator().manual_seed(index)

        def run(given: dict[str, Any] = given, generator: Any = generator) -> object:
            return live(**given, generator=generator)

        with state.looking(), quiet(pipe):
            calls += record_calls(pipe, run, name, each)
    getattr(live, name).__dict__[CALIBRATION] = Calibration(mode, tuple(calls[:samples]))
    state.note(name, "calibrate", mode=mode, samples=samples, request_steps=request_steps)
    return pipe
