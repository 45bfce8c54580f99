"""Step by constants instead of by the scheduler's own arithmetic."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from diffopt.backends.base import BackendError, Tensors, Witness
from diffopt.backends.runtime.attachment import Attachment, Call, Proceed, attachment

Pipe = TypeVar("Pipe")
UNROLLED = "_diffopt_unrolled"


def unroll_steps(pipe: Pipe, component: str, *, timesteps: Sequence[float], weights: Sequence[Sequence[float]]) -> Pipe:
    """Let requests at these timesteps step by weights; all others step as the scheduler does.

    weights: of each step, for latent and prediction, then for those of the step before, and so on.
    Raises BackendError if they do not fit each other, or the scheduler steps by weights already.
    """
    scheduler, state = getattr(pipe, component), attachment(pipe)
    if len(timesteps) != len(weights) or not weights:
        raise BackendError(f"{len(timesteps)} timesteps do not fit {len(weights)} rows of weights")
    for index, row in enumerate(weights):
        if not row or len(row) % 2 or len(row) > 2 * (index + 1):
            raise BackendError(f"step {index} takes a weight for each latent and each prediction up to it")
    if UNROLLED in scheduler.__dict__:
        raise BackendError("the steps are unrolled already")
    schedule = Schedule(scheduler, state, timesteps, weights)
    scheduler.__dict__[UNROLLED] = schedule
    for name, own in (("set_timesteps", schedule.set_timesteps), ("step", schedule.step)):
        scheduler.__dict__[name] = _taking_the_place(getattr(scheduler, name), own)
    state.layers.append(schedule.request)
    state.note(component, "unroll_steps", timesteps=[*timesteps], weights=[[*row] for row in weights])
    state.witnesses.append(schedule.witness)
    return pipe


def _taking_the_place(original: Any, own: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that calls `own` and has the signature that pipelines look at."""

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        return own(*args, **kwargs)

    return call


class Schedule:
    """The constants, and the latents and predictions of the last steps. Empty between requests."""

    def __init__(
        self, scheduler: Any, state: Attachment, timesteps: Sequence[float], weights: Sequence[Sequence[float]]
    ) -> None:
        self._scheduler = scheduler
        self._state = state
        self._set_timesteps, self._step = scheduler.set_timesteps, scheduler.step
        self._timesteps, self._weights = timesteps, weights
        self._reach = max(map(len, weights)) // 2
        self._inside = self._follows = False
        self._past: list[Tensors] = []
        self._index = self._steps = 0

    def request(self, proceed: Proceed, call: Call) -> Any:
        """Run one pipeline call, and leave nothing behind, also when it raises."""
        self._inside, self._follows = True, False
        try:
            return proceed(call)
        finally:
            self._inside = self._follows = False
            self._past.clear()

    def set_timesteps(self, *args: Any, **kwargs: Any) -> Any:
        """Take the place of the scheduler's own: see whether the schedule is the one that was unrolled."""
        found = self._set_timesteps(*args, **kwargs)
        self._past.clear()
        self._index = 0
        # Read once a request, so that no step has to.
        times = self._scheduler.timesteps.tolist()
        close = len(times) == len(self._timesteps) and all(
            abs(own - time) <= 1e-3 for own, time in zip(self._timesteps, times, strict=True)
        )
        self._follows = self._inside and close
        if self._follows and hasattr(self._scheduler, "set_begin_index"):
            self._scheduler.set_begin_index(0)  # or the first step searches for its index on the host
        if self._inside and not close:
            self._state.say_once("the steps are not unrolled: they are for other timesteps than were asked for")
        return found

    def step(self, model_output: Any, timestep: Any, sample: Any, *args: Any, **kwargs: Any) -> Any:
        """Take the place of the scheduler's own."""
        noisy = bool(args) or bool(kwargs.get("eta")) or kwargs.get("variance_noise") is not None
        midway = getattr(self._scheduler, "begin_index", None) not in (None, 0)
        if not self._follows or noisy or midway:
            self._follows = False
            return self._step(model_output, timestep, sample, *args, **kwargs)
        return self._constant_step(model_output, sample, return_dict=kwargs.get("return_dict", True))

    def _constant_step(self, output: Any, sample: Any, *, return_dict: bool) -> Any:
        import torch

        row = self._weights[self._index]
        wide = torch.promote_types(sample.dtype, torch.float32)
        self._past.insert(0, (sample.to(wide), output.to(wide)))
        del self._past[self._reach :]
        total = None
        for place, weight in enumerate(row):
            if weight:
                part = self._past[place // 2][place % 2] * weight
                total = part if total is None else total + part
        if total is None:
            raise AssertionError("a step has a weight that is not zero")
        self._index += 1
        self._steps += self._state.counting
        if hasattr(self._scheduler, "_step_index"):
            self._scheduler._step_index = self._index  # `scale_model_input` looks there
        found = total.to(output.dtype)
        if not return_dict:
            return (found,)
        from diffusers.schedulers.scheduling_utils import SchedulerOutput

        return SchedulerOutput(prev_sample=found)

    def count_folded(self, requests: int) -> None:
        """Count requests that something traced from these steps answered."""
        self._steps += requests * len(self._weights)

    def witness(self) -> Witness:
        return Witness("unroll_steps", self._steps, f"{self._steps} steps by {len(self._weights)} rows of constants")
