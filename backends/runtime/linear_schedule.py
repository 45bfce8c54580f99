"""What a scheduler does to latents, found by asking it: a linear recurrence whose numbers can lie on the device.

Deterministic samplers are linear in the latents and the model's outputs. Asked with unit vectors, a scheduler tells its
coefficients itself, so a captured step needs no code of its own for each sampler, and reads nothing back to the host.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

Rows = tuple[tuple[float, ...], ...]
DEEPEST = 3
"""Steps back that a recurrence may look: multistep solvers of the third order look so far."""

TOLERANCE = 2e-5
"""How far a fitted recurrence may be from what the scheduler said, relative to it; schedulers compute in float32."""


@dataclass(frozen=True)
class Recurrence:
    """x[i+1] = sum over k of samples[i][k] x[i-k] + outputs[i][k] e[i-k]; the model is given inputs[i] x[i]."""

    samples: Rows
    outputs: Rows
    inputs: tuple[float, ...]

    @property
    def depth(self) -> int:
        """How many latents and outputs a step reads."""
        return len(self.samples[0])

    @property
    def steps(self) -> int:
        """How many steps there are."""
        return len(self.samples)


def recurrence(scheduler: Any) -> Recurrence | str:
    """Return the recurrence that a scheduler with its timesteps set follows, or why it follows none.

    The scheduler itself is left as it is.
    """
    import torch

    asked = on_host(scheduler)
    times = list(asked.timesteps)
    count = len(times)
    sample = torch.zeros(1, count + 1, 1, 1, dtype=torch.float64)
    sample[0, 0] = 1
    states, inputs = [sample], []
    try:
        for step, time in enumerate(times):
            ones = torch.ones_like(sample)
            scaled = asked.scale_model_input(ones, time) if hasattr(asked, "scale_model_input") else ones
            inputs.append(float(scaled.flatten()[0]))
            output = torch.zeros_like(sample)
            output[0, step + 1] = 1
            states.append(asked.step(output, time, states[-1], return_dict=False)[0].double())
    except (ValueError, IndexError, TypeError, RuntimeError, AttributeError, NotImplementedError) as error:
        return f"{type(scheduler).__name__} does not take unit vectors ({error})"
    rows = np.stack([state.flatten().numpy() for state in states])
    for depth in range(1, DEEPEST + 1):
        fitted = [_fit(rows, step, depth) for step in range(count)]
        if all(fit is not None for fit in fitted):
            found = [fit for fit in fitted if fit is not None]
            return Recurrence(tuple(f[0] for f in found), tuple(f[1] for f in found), tuple(inputs))
    return f"{type(scheduler).__name__} is no linear recurrence over {DEEPEST} steps"


def _fit(rows: Any, step: int, depth: int) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Fit one step; `None` if what came out is not made of the last `depth` latents and outputs."""
    back = min(step + 1, depth)
    units = np.eye(rows.shape[1])
    basis = np.stack([*(rows[step - k] for k in range(back)), *(units[step - k + 1] for k in range(back))], axis=1)
    wanted = rows[step + 1]
    scale = np.maximum(np.linalg.norm(basis, axis=0), 1e-30)
    solved = np.linalg.lstsq(basis / scale, wanted, rcond=1e-9)[0] / scale
    off = np.abs(basis @ solved - wanted).max()
    if not np.isfinite(off) or off > TOLERANCE * max(np.abs(wanted).max(), 1e-6):
        return None
    empty = (0.0,) * (depth - back)
    return (*map(float, solved[:back]), *empty), (*map(float, solved[back:]), *empty)


def on_host(scheduler: Any) -> Any:
    """Return a copy of a scheduler whose tables lie on the host."""
    import torch

    copied = copy.copy(scheduler)
    copied.__dict__ = {
        key: value.detach().to("cpu", copy=True) if isinstance(value, torch.Tensor) else copy.copy(value)
        for key, value in scheduler.__dict__.items()
        if not callable(value)
    }
    return copied
