"""Calls that hand a pipeline to a thread: `asyncio.to_thread(pipe, ...)`, `run_in_executor(None, pipe, ...)`."""

from __future__ import annotations

import libcst as cst

HANDED = {"to_thread": 0, "run_in_threadpool": 0, "run_sync": 0, "run_in_executor": 1}
"""Functions that call what they are given, and at which position they are given it."""

NO_KEYWORDS = ("run_in_executor", "run_sync")
"""Those that hand on no keyword."""


def handed(call: cst.Call) -> int | None:
    """Return the position of the function that a call has run in a thread; `None` for other calls."""
    position = HANDED.get(_last_name(call.func))
    if position is None or len(call.args) <= position or any(a.star or a.keyword for a in call.args[: position + 1]):
        return None
    return position


def bound_in_thread(call: cst.Call) -> cst.Call | None:
    """Return the `partial(pipe, ...)` that a call has run in a thread."""
    position = handed(call)
    inner = call.args[position].value if position is not None else None
    return inner if isinstance(inner, cst.Call) and _last_name(inner.func) == "partial" and inner.args else None


def takes_keywords(call: cst.Call) -> bool:
    """Say whether a keyword put into a call reaches the pipeline."""
    return _last_name(call.func) not in NO_KEYWORDS


def before(call: cst.Call) -> int:
    """Return how many positional arguments of a pipeline's call stand before the pipeline's own."""
    position = handed(call)
    if position is not None:
        return position + 1
    return 1 if _last_name(call.func) == "partial" else 0


def _last_name(node: cst.BaseExpression) -> str:
    name = node.attr if isinstance(node, cst.Attribute) else node
    return name.value if isinstance(name, cst.Name) else ""
