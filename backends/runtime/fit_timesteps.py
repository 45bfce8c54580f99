"""Let a scheduler take timesteps chosen one by one."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, TypeVar

from diffopt.backends.base import BackendError, Witness
from diffopt.backends.runtime.attachment import attachment

Pipe = TypeVar("Pipe")
FITTED = "_diffopt_fitted_timesteps"


class Requests:
    """How many requests followed timesteps of one's own."""

    def __init__(self) -> None:
        self.count = 0

    def count_folded(self, requests: int) -> None:
        """Count requests that something made with these timesteps answered."""
        self.count += requests


def fit_timesteps(pipe: Pipe, component: str = "scheduler", *, timesteps: Sequence[int]) -> Pipe:
    """Let requests of as many steps follow these timesteps; others, and timesteps a caller gives, are as before.

    timesteps: of the noise schedule, falling; for a flow they count thousandths before the schedule is shifted.
    Raises BackendError if the scheduler takes no timesteps of one's own.
    """
    chosen, state = [int(step) for step in timesteps], attachment(pipe)
    if not chosen or any(later >= earlier for earlier, later in pairwise(chosen)) or chosen[-1] < 0:
        raise BackendError("timesteps fall from one to the next and are not below 0")
    scheduler = getattr(pipe, component)
    total, kind = scheduler.config.get("num_train_timesteps", 1000), type(scheduler).__name__
    flow = "FlowMatch" in kind or bool(scheduler.config.get("use_flow_sigmas"))
    if chosen[0] > total - (not flow):
        raise BackendError(f"there is no timestep {chosen[0]} among {total}")
    name = "sigmas" if flow else "timesteps"
    original, requests = scheduler.set_timesteps, Requests()
    if name not in inspect.signature(original).parameters:
        raise BackendError(f"{kind} takes no {name} of one's own")
    values = [step / total for step in chosen] if flow else chosen

    @functools.wraps(original)
    def set_timesteps(num_inference_steps: int | None = None, device: Any = None, **given: Any) -> Any:
        own = [given.get(key) for key in ("timesteps", "sigmas")]
        count = num_inference_steps if num_inference_steps is not None else len(own[1] if own[1] is not None else ())
        if count != len(chosen) or own[0] is not None or not (own[1] is None or _is_plain(own[1])):
            return original(num_inference_steps, device, **given)
        requests.count += state.counting
        rest = {key: value for key, value in given.items() if key not in ("timesteps", "sigmas")}
        return original(device=device, **{name: values}, **rest)

    scheduler.__dict__["set_timesteps"] = set_timesteps
    scheduler.__dict__[FITTED] = requests
    state.note(component, "fit_timesteps", timesteps=chosen)
    detail = f"{len(chosen)} timesteps of one's own"
    state.witnesses.append(lambda: Witness("fit-timesteps", requests.count, f"{requests.count} requests at {detail}"))
    return pipe


def _is_plain(sigmas: Any) -> bool:
    """Tell whether these are the evenly spaced sigmas that some pipelines give every scheduler."""
    import numpy

    return bool(numpy.allclose(sigmas, numpy.linspace(1.0, 1 / len(sigmas), len(sigmas))))
