"""Return images without looking at them first."""

from __future__ import annotations

from typing import Any, TypeVar

from diffopt.backends.base import BackendError, Witness
from diffopt.backends.runtime.attachment import Call, Proceed, attachment

Pipe = TypeVar("Pipe")


def drop_safety_checker(pipe: Pipe) -> Pipe:
    """Take the safety checker out of the pipeline. Raises BackendError if there is none."""
    live: Any = pipe
    if getattr(live, "safety_checker", None) is None:
        raise BackendError(f"{type(pipe).__name__} has no safety checker")
    state, requests = attachment(pipe), [0]
    live.safety_checker = None
    live.register_to_config(requires_safety_checker=False)

    def request(proceed: Proceed, call: Call) -> Any:
        requests[0] += state.counting
        return proceed(call)

    state.layers.append(request)
    state.note("pipeline", "drop_safety_checker")
    state.witnesses.append(lambda: Witness("drop_safety_checker", requests[0], f"{requests[0]} requests not checked"))
    return pipe
