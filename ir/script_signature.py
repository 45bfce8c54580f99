"""The call parameters of a pipeline class, by name."""

from __future__ import annotations

from collections.abc import Mapping

from diffopt.ir.pipeline_classes import pipeline_class


def call_parameters(pipeline_class_name: str) -> Mapping[str, object]:
    """Return the parameters of a pipeline's `__call__` in order, with their defaults; `None` where there is none.

    Args:
        pipeline_class_name: class name, with or without the library before it.
    """
    found = pipeline_class(pipeline_class_name)
    return found.call if found is not None else {}
