"""Branches of a script: which ones cannot run, and which hang on something that is only known when it runs."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import libcst as cst

from diffopt.ir.script_kinds import Known, Symbol
from diffopt.ir.script_values import Values

LAZY = (cst.FunctionDef, cst.Lambda, cst.ClassDef)


def is_dead(values: Values, node: cst.CSTNode) -> bool:
    """Say whether a node stands in a branch that is known not to run."""
    return any(isinstance(value, bool) and not value for value, _ in _tests(values, node))


def open_condition(values: Values, node: cst.CSTNode, sites: Iterable[cst.CSTNode] = ()) -> str:
    """Return the first condition around a node whose outcome is not known, in the script's words; empty for none.

    Args:
        sites: what hangs on the same condition if it stands in the same branch.
    """
    shared = {block for site in sites for block in values.script.ancestors(site)}
    return next((text for value, text in _tests(values, node, shared) if value is None), "")


def _tests(
    values: Values, node: cst.CSTNode, shared: Collection[cst.CSTNode] = frozenset()
) -> list[tuple[bool | None, str]]:
    """Return for each branch around a node whether it is taken, `None` where that is not known; innermost first."""
    found: list[tuple[bool | None, str]] = []
    inner = node
    for ancestor in values.script.ancestors(node):
        if isinstance(ancestor, LAZY):
            break
        if inner in shared:
            inner = ancestor
            continue
        if isinstance(ancestor, cst.If | cst.IfExp) and inner is not ancestor.test:
            known = values.of(ancestor.test)
            text = values.short(ancestor.test)
            if isinstance(known, Known) and not isinstance(known.value, Symbol):
                found.append((bool(known.value) is (inner is ancestor.body), text))
            elif not text.startswith("__name__"):
                found.append((None, text))
        elif isinstance(ancestor, cst.ExceptHandler):
            found.append((None, "except"))
        inner = ancestor
    return found
