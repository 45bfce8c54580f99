"""Fit a solver of few steps to a model: weights by least squares on its own trajectories, timesteps by descent."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from diffopt.backends.base import BackendError
from diffopt.backends.fitting import own_timestep
from diffopt.backends.runtime.replaced import replaced

Run = Callable[[], object]
RIDGE = 1e-9
"""Added to the squares' diagonal, relative to it: two latents in a row are nearly alike."""
SCALED = ("EulerDiscreteScheduler",)
"""Schedulers whose latents are scaled for the denoiser; where the last step ends, no noise and so no scale is left."""
STRIDES = (5, 2, 1)
"""By how many of the traced steps a timestep is moved, in turn."""


@dataclass(frozen=True)
class Fitted:
    """A solver: timesteps as one gives them to the scheduler, a row of weights a step, and how far the last latent is off.

    error: relative L2, the median over the pictures of the run.
    """

    timesteps: tuple[int, ...]
    weights: tuple[tuple[float, ...], ...]
    error: float


@dataclass(frozen=True)
class Trajectory:
    """What a run of many steps went through: its timesteps, and the latents before each step and after the last."""

    timesteps: tuple[float, ...]
    latents: tuple[torch.Tensor, ...]


def trace_trajectory(pipe: Any, run: Run) -> Trajectory:
    """Return the trajectory of one request, in the scale of latents that the denoiser is given.

    Raises BackendError if the scheduler draws noise in its steps, asks twice a step, or keeps its latents in a scale of its own.
    """
    scheduler = pipe.scheduler
    if why := _untraceable(type(scheduler).__name__):
        raise BackendError(
            f"the steps of {type(scheduler).__name__} cannot be fitted to: {why}", "take another scheduler"
        )
    # Euler's latents grow with the noise, and are scaled where the denoiser reads them.
    scaled = scheduler.scale_model_input if type(scheduler).__name__ in SCALED else lambda sample, timestep: sample
    times, latents = list[float](), list[torch.Tensor]()
    original = scheduler.step

    def step(output: torch.Tensor, timestep: Any, sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        before = scaled(sample, timestep).detach().float()
        found = original(output, timestep, sample, *args, **kwargs)
        times.append(float(timestep))
        latents[-1:] = [before, (found[0] if isinstance(found, tuple) else found.prev_sample).detach()]
        return found

    with replaced(pipe.scheduler, step=step), torch.no_grad():
        run()
    return Trajectory(tuple(times), tuple(latents))


def _untraceable(name: str) -> str:
    """Return why the latents of such a scheduler are no trajectory to fit to; empty where they are."""
    if "Ancestral" in name or "SDE" in name or name in ("DDPMScheduler", "TCDScheduler", "LCMScheduler"):
        return "each draws noise"
    if "Heun" in name or "KDPM2" in name:
        return "they ask the denoiser twice"
    return "their latents have a scale of their own" if name.startswith(("EDM", "LMS")) else ""


def fit_weights(pipe: Any, run: Run, traced: Trajectory, places: Sequence[int], reach: int = 3) -> Fitted:
    """Return the best weights for steps at these places of a trajectory, fitted one step after the other.

    pipe: its scheduler takes timesteps (of a flow, sigmas) of one's own. run: a request of it, of the traced prompts and seeds.
    Each step is fitted on the latents that the steps before it lead to, so that it also mends what they missed.
    """
    scheduler = pipe.scheduler
    chosen = tuple(own_timestep(scheduler, traced.timesteps[place]) for place in places)
    flow = "FlowMatch" in type(scheduler).__name__
    total = float(scheduler.config.get("num_train_timesteps", 1000))
    values = {"sigmas": [step / total for step in chosen]} if flow else {"timesteps": list(chosen)}
    # Beneath timesteps that are fixed already.
    set_timesteps = inspect.unwrap(scheduler.set_timesteps)
    past, rows = list[torch.Tensor](), list[tuple[float, ...]]()
    last = list[torch.Tensor]()

    def set_chosen(num_inference_steps: Any = None, device: Any = None, **_: Any) -> None:
        set_timesteps(device=device, **values)

    def step(output: torch.Tensor, timestep: Any, sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        past[:0] = [sample.float(), output.float()]
        del past[2 * reach :]
        index = len(rows) + 1
        target = traced.latents[places[index] if index < len(places) else -1]
        columns = torch.stack([value.flatten().double() for value in past], dim=1)
        squares, right = columns.T @ columns, columns.T @ target.flatten().double()
        row = torch.linalg.solve(squares + RIDGE * torch.diag(squares.diagonal()), right)
        rows.append(tuple(float(f"{weight:.9g}") for weight in row))
        found = sum(weight * value for weight, value in zip(rows[-1], past, strict=True))
        last[:] = [torch.as_tensor(found).to(sample.dtype)]
        return (last[0],)

    with replaced(scheduler, set_timesteps=set_chosen, step=step), torch.no_grad():
        run()
    missed = (last[0].float() - traced.latents[-1]).flatten(1).norm(dim=1) / traced.latents[-1].flatten(1).norm(dim=1)
    return Fitted(chosen, tuple(rows), float(missed.median()))


def fit_solver(pipe: Any, run: Run, traced: Trajectory, count: int) -> Fitted:
    """Return the weights and timesteps of `count` steps that come nearest to where a trajectory ends.

    Raises BackendError if the trajectory has no more steps than that.
    """
    steps = len(traced.timesteps)
    if count >= steps:
        raise BackendError(f"the traced run has {steps} steps, and {count} are to be fewer")
    places = [round(index * steps / count) for index in range(count)]
    best = fit_weights(pipe, run, traced, places)
    for stride in STRIDES:
        moved = True
        while moved:
            moved = False
            for index in range(1, count):
                for change in (-stride, stride):
                    tried = [*places[:index], places[index] + change, *places[index + 1 :]]
                    if tried != sorted(set(tried)) or tried[-1] >= steps:
                        continue
                    found = fit_weights(pipe, run, traced, tried)
                    if found.error < best.error:
                        best, places, moved = found, tried, True
    return best
