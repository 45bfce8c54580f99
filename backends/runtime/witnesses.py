"""Tell what each transform on a pipeline really did."""

from __future__ import annotations

from typing import Any

from diffopt.backends.base import Witness
from diffopt.backends.runtime.attachment import ATTRIBUTE, Attachment
from diffopt.backends.runtime.observed import observed


def witnesses(pipe: Any) -> list[Witness]:
    """Return what every transform on this pipeline did so far, in order of application."""
    state = getattr(pipe, ATTRIBUTE, None)
    if not isinstance(state, Attachment):
        return []
    found = [*(witness() for witness in state.witnesses), *observed(pipe)]
    if state.engines:
        # Their folders' names, so that an artifact takes along just these.
        found.append(Witness("engine-files", len(state.engines), " ".join(state.engines)))
    return found
