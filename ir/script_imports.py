"""Imports that new statements of a script need: the ones that are there, under their own names, and new ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import libcst as cst

from diffopt.ir.script_lines import MARK, Edit, Lines
from diffopt.ir.script_text import Part, Script

Pair = tuple[str, str]


@dataclass(frozen=True)
class Imports:
    """What each (module, name) is written as in the script, and the edits that make it so."""

    written: Mapping[Pair, str]
    edits: tuple[Edit, ...]


def imports(script: Script, lines: Lines, needed: Mapping[Pair, str], first_use: cst.CSTNode) -> Imports:
    """Find or add imports.

    Args:
        needed: (module, name) pairs, with the pass that needs each.
        first_use: the first node of the script that needs imports of its own; new ones go before it.
    """
    part = script.part(first_use)
    bound = _bound_names(part)
    limit = _top_level(script, first_use)
    written: dict[Pair, str] = {}
    new: dict[int, list[tuple[Pair, str, str]]] = {}
    top = _import_lines(part)
    for pair, origin in needed.items():
        module, name = pair
        present = _present(script, bound, pair, limit)
        if present:
            written[pair] = present
            continue
        alias = name if bound.get(name, set()) <= {f"{module}.{name}"} else f"diffopt_{name}"
        written[pair] = alias
        fitting = [line for line in top if script.start(line) < script.start(limit)]
        same = [line for line in fitting if module.split(".")[0] in script.code(line.body[0]).replace(".", " ").split()]
        anchor = (same or fitting)[-1] if fitting else None
        at = script.start(anchor) if anchor is not None else -1
        new.setdefault(at, []).append((pair, alias, origin))
    edits = [_edit(script, part, lines, at, entries) for at, entries in sorted(new.items())]
    return Imports(written, tuple(edits))


def _bound_names(part: Part) -> dict[str, set[str]]:
    """Return every name the script binds in any scope, with what it imports under it (empty text for other things)."""
    found: dict[str, set[str]] = {}
    for scope in part.scopes.all():
        for name, assigned in scope.names.items():
            found.setdefault(name, set()).update(one.imported for one in assigned)
    return found


def _present(script: Script, bound: Mapping[str, set[str]], pair: Pair, limit: cst.CSTNode) -> str:
    """Return how the script can already write an imported name; empty if it cannot."""
    module, name = pair
    for line in _import_lines(script.part(limit)):
        if script.start(line) >= script.start(limit):
            continue
        for statement in line.body:
            if isinstance(statement, cst.ImportFrom) and not isinstance(statement.names, cst.ImportStar):
                source = (
                    script.code(statement.module) if statement.module is not None and not statement.relative else ""
                )
                for alias in statement.names:
                    local = alias.evaluated_alias or alias.evaluated_name
                    if (source, alias.evaluated_name) == pair and len(bound.get(local, ())) == 1:
                        return local
            elif isinstance(statement, cst.Import):
                for alias in statement.names:
                    local = alias.evaluated_alias or alias.evaluated_name
                    if alias.evaluated_name == module and len(bound.get(local, ())) <= 1:
                        return f"{local}.{name}"
    return ""


def _import_lines(part: Part) -> list[cst.SimpleStatementLine]:
    """Return the lines at the top level that import, `__future__` aside."""
    return [
        line
        for line in part.module.body
        if isinstance(line, cst.SimpleStatementLine) and any(map(_is_import, line.body))
    ]


def _is_import(statement: cst.BaseSmallStatement) -> bool:
    if isinstance(statement, cst.ImportFrom):
        return not (isinstance(statement.module, cst.Name) and statement.module.value == "__future__")
    return isinstance(statement, cst.Import)


def _top_level(script: Script, node: cst.CSTNode) -> cst.CSTNode:
    """Return the statement of the module that holds a node."""
    chain = [node, *script.ancestors(node)]
    return chain[-2] if len(chain) > 1 else node


def _edit(script: Script, part: Part, lines: Lines, at: int, entries: Iterable[tuple[Pair, str, str]]) -> Edit:
    """Return the edit that adds imports behind the import at an offset; behind docstring and `__future__` for -1."""
    merged: dict[str, list[tuple[str, str, str]]] = {}
    for (module, name), alias, origin in entries:
        merged.setdefault(module, []).append((name, alias, origin))
    code = []
    for module, names in sorted(merged.items(), key=lambda item: (item[0].startswith("diffopt"), item[0])):
        parts = [name if name == alias else f"{name} as {alias}" for name, alias, _ in sorted(names)]
        origins = dict.fromkeys(origin for _, _, origin in names if origin)
        mark = f"{MARK}: {', '.join(origins)}" if origins else MARK
        code.append(f"from {module} import {', '.join(parts)}  {mark}")
    if at >= 0:
        line = next(line for line in _import_lines(part) if script.start(line) == at)
        return lines.after(script.end(line.body[-1]), code)
    before = [line for line in part.module.body if _is_preface(line)]
    preface = before[: next((i for i, line in enumerate(part.module.body) if line not in before), len(before))]
    if preface:
        last = preface[-1]
        assert isinstance(last, cst.SimpleStatementLine)
        return lines.after(script.end(last.body[-1]), code)
    first = lines.statement_start(
        min(
            script.start(node)
            for node in script.nodes
            if isinstance(node, cst.BaseSmallStatement | cst.BaseCompoundStatement) and script.part(node) is part
        )
    )
    newline = lines.newline(first)
    return Edit(first, first, "".join(f"{text}{newline}" for text in code))


def _is_preface(line: cst.CSTNode) -> bool:
    """Say whether a line is a docstring or a `__future__` import."""
    if not isinstance(line, cst.SimpleStatementLine):
        return False
    first = line.body[0]
    if isinstance(first, cst.Expr):
        return isinstance(first.value, cst.SimpleString | cst.ConcatenatedString)
    return isinstance(first, cst.ImportFrom) and not _is_import(first)
