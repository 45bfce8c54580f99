"""Let attributes of one object be others for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

_ABSENT = object()


@contextlib.contextmanager
def replaced(thing: Any, **values: Any) -> Iterator[None]:
    """Set attributes on the object itself, past what its class does on setting, and put back what stood there."""
    own = {name: thing.__dict__.get(name, _ABSENT) for name in values}
    thing.__dict__.update(values)
    try:
        yield
    finally:
        for name, value in own.items():
            if value is _ABSENT:
                thing.__dict__.pop(name, None)
            else:
                thing.__dict__[name] = value
