"""The floor of a pipeline: the same program with a denoiser that computes nothing. No faster denoiser can beat it."""

from __future__ import annotations

from diffopt.bench.evaluate import Program
from diffopt.bench.outcome import Measured, Outcome

IDLE_DENOISER = '''

_load_with_denoiser = load


def load(*args, **kwargs):
    """Load the pipeline with a denoiser that answers with its input."""
    from types import SimpleNamespace

    pipe = _load_with_denoiser(*args, **kwargs)
    denoiser = next(part for part in (getattr(pipe, n, None) for n in ("unet", "transformer")) if part is not None)

    def forward(*args, **kwargs):
        latents = next((kwargs[name] for name in ("sample", "hidden_states") if name in kwargs), None)
        latents = args[0] if latents is None else latents
        return SimpleNamespace(sample=latents) if kwargs.get("return_dict", True) else (latents,)

    denoiser.forward = forward
    return pipe
'''


def floor_program(program: Program) -> Program:
    """Return a program whose denoiser gives its input back, whatever it is asked."""
    return Program(f"floor of {program.name}", program.pipeline_py + IDLE_DENOISER)


def ceiling(outcome: Outcome) -> float | None:
    """Return the largest speed-up that any change of the denoiser alone can reach; None where it was not measured.

    Args:
        outcome: of the floor program, against the program it was made of.
    """
    return outcome.latency.hi if isinstance(outcome, Measured) else None
