"""How each transform is written in code: its line, when it comes, and whether a whole-pipeline engine can hold it.

A transform without a row here is a runtime function of its own name that changes a component in place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum


class Phase(IntEnum):
    """When a transform runs: those of an earlier phase run first, on whatever component they stand."""

    IN_PLACE = 0
    CALL = 1
    """Changes the pipeline's call, not its parts."""
    PLAN = 2
    """Follows the schedule: the step plan, caches of features."""
    PLACEMENT = 3
    """Says where the parts lie; what is built later is built on it."""
    BUILT = 4
    """Makes something new of what stands there."""


@dataclass(frozen=True)
class Form:
    """How a transform is written.

    Args:
        function: the runtime function, where its name is not the transform's.
        code: a line of public API instead of a runtime function, with `{pipe}`, `{target}` and `{arguments}`.
        imports: (module, name) pairs that `code` needs.
        folds: a whole-pipeline engine takes along what the transform did, so both may be.
        on_device: the pipeline is moved to its device first; not so for offloading, which moves parts itself.
    """

    phase: Phase = Phase.IN_PLACE
    function: str = ""
    code: str = ""
    imports: tuple[tuple[str, str], ...] = ()
    folds: bool = True
    on_device: bool = True


FORMS: Mapping[str, Form] = {
    "compile": Form(Phase.BUILT, function="compile_component", folds=False),
    "export": Form(Phase.BUILT, folds=False),
}


def form(transform: str) -> Form:
    """Return how a transform is written."""
    return FORMS.get(transform, Form())
