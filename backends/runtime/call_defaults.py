"""Give a pipeline's call new default arguments."""

from __future__ import annotations

from typing import Any, TypeVar

from diffopt.backends.base import BackendError
from diffopt.backends.runtime.attachment import attachment

Pipe = TypeVar("Pipe")


def call_defaults(pipe: Pipe, **defaults: Any) -> Pipe:
    """Make `pipe(prompt)` use these arguments; arguments the caller gives still win.

    Raises BackendError if the pipeline's call has no such argument.
    """
    state = attachment(pipe)
    unknown = [name for name in defaults if name not in state.parameters]
    if unknown:
        raise BackendError(f"{type(pipe).__name__} takes no argument {unknown[0]!r}")
    state.defaults.update(defaults)
    return pipe
