"""Deprecations of the installed diffusers: the `deprecate(...)` calls in its source, never a list of ours."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from diffopt.doctor.installed import ancestry

CONSTRUCTORS = ("__init__", "__new__")
MIXIN = "DeprecatedPipelineMixin"
PRESENCE = (r"(\w+) is not None", r"'(\w+)' in kwargs", r"kwargs\.get\('(\w+)', None\) is not None")
"""Conditions that ask whether an argument was given."""


@dataclass(frozen=True)
class Deprecation:
    """Something of a class that diffusers warns of when it is used.

    Args:
        method: what warns; empty for the class itself.
        argument: the argument that is deprecated; empty for a whole class or method.
        removed: the version that takes it out.
    """

    owner: str
    method: str
    argument: str
    removed: str
    message: str


@cache
def deprecations(class_name: str) -> tuple[Deprecation, ...]:
    """Return the deprecations of a class of diffusers and of what it inherits."""
    found: list[Deprecation] = []
    defined: set[str] = set()
    for node in ancestry(class_name):
        methods = [part for part in node.body if isinstance(part, ast.FunctionDef)]
        for method in methods:
            if method.name not in defined:
                found += _of(node.name, method, inherited=node.name != class_name)
        defined |= {method.name for method in methods}
    bases = [ast.unparse(base) for node in ancestry(class_name)[:1] for base in node.bases]
    if MIXIN in bases:
        found.append(Deprecation(class_name, "", "", "", f"{class_name} is deprecated and gets no more fixes"))
    return tuple(found)


def _of(owner: str, method: ast.FunctionDef, *, inherited: bool) -> Iterator[Deprecation]:
    texts: dict[str, ast.expr] = {}
    for statement in method.body:
        if isinstance(statement, ast.If):
            argument = _argument(statement.test)
            inner = dict(texts)
            for nested in statement.body if argument else ():
                _note(nested, inner)
                if (call := _warning(nested)) is not None:
                    yield _deprecation(owner, method.name, argument or "", call, inner)
            continue
        _note(statement, texts)
        call = _warning(statement)
        if call is None or (method.name in CONSTRUCTORS and inherited):
            continue
        yield _deprecation(owner, "" if method.name in CONSTRUCTORS else method.name, "", call, texts)


def _note(statement: ast.stmt, texts: dict[str, ast.expr]) -> None:
    """Remember a text that a warning may be given by name."""
    if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
        texts[statement.targets[0].id] = statement.value


def _warning(statement: ast.stmt) -> ast.Call | None:
    match statement:
        case ast.Expr(value=ast.Call(func=ast.Name(id="deprecate"), args=[_, _, _, *_]) as call):
            return call
    return None


def _deprecation(owner: str, method: str, argument: str, call: ast.Call, texts: dict[str, ast.expr]) -> Deprecation:
    text = call.args[2]
    text = texts.get(text.id, text) if isinstance(text, ast.Name) else text
    message = re.sub(r"\s+", " ", _text(text)).strip().rstrip(".")
    return Deprecation(owner, method, argument, _text(call.args[1]), message)


def _argument(test: ast.expr) -> str | None:
    """Return the argument whose presence a condition asks for; `None` for any other condition."""
    text = ast.unparse(test)
    return next((match[1] for pattern in PRESENCE if (match := re.fullmatch(pattern, text)) is not None), None)


def _text(node: ast.expr) -> str:
    """Return the text of a message with what is put into it left out."""
    match node:
        case ast.Constant(value=value):
            return str(value)
        case ast.JoinedStr(values=parts):
            return "".join(str(p.value) if isinstance(p, ast.Constant) else "..." for p in parts)
        case ast.BinOp(left=left, right=right):
            return _text(left) + _text(right)
    return ""
