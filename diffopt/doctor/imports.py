"""Imports of names that an installed library does not have."""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from diffopt.doctor.facts import Facts
from diffopt.doctor.installed import names_of


def missing_names(facts: Facts, library: str) -> Iterator[tuple[cst.ImportAlias, str, str]]:
    """Yield (alias, module, name) for each import that raises; not those that are tried, or made under a condition."""
    for node in facts.script.all(cst.ImportFrom):
        if node.module is None or node.relative or isinstance(node.names, cst.ImportStar):
            continue
        module = facts.script.code(node.module)
        if module.split(".")[0] != library or facts.script.enclosing(node, cst.Try, cst.If) is not None:
            continue
        names = names_of(module)
        for alias in node.names if names is not None else ():
            if names is not None and alias.evaluated_name not in names:
                yield alias, module, alias.evaluated_name
