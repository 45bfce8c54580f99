"""What an answer changes of its pipeline beside the methods that are read: data types of parts, functions, the running call."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

DTYPES = {
    "half": "float16", "float16": "float16", "bfloat16": "bfloat16", "float": "float32", "float32": "float32",
    "double": "float64", "float64": "float64",
}  # fmt: skip
"""Names of data types, and methods of modules that change to them."""

RUNNING = ("callback", "callback_on_step_end")
"""Arguments of a call by which code changes the call as it runs."""


@dataclass(frozen=True)
class Changes:
    """What was found.

    Args:
        dtype: that the whole pipeline was changed to last; empty where it was not.
        parts: changes of a part's data type, as written, with the type.
        patches: what else is changed, each in a sentence.
    """

    dtype: str = ""
    parts: tuple[tuple[str, str], ...] = ()
    patches: tuple[str, ...] = ()

    def against(self, dtype: str) -> list[str]:
        """Say what of this changes a pipeline that is of a data type, and of which nothing else was to be changed."""
        kept = self.dtype or dtype
        other = [
            f"`{text}` makes a part {found}, the pipeline is {kept}" for text, found in self.parts if found != kept
        ]
        return [*other, *self.patches]


def changes_of(tree: ast.Module) -> Changes:
    """Return what a script changes of its pipeline."""
    pipes = _pipes(tree)
    whole: list[tuple[int, str]] = []
    parts: list[tuple[str, str]] = []
    for call, owner, dtype in _casts(tree):
        if not _names(owner) & pipes or _of_images(owner):
            continue
        if isinstance(owner, ast.Name) and owner.id in _direct(tree):
            whole.append((call.lineno, dtype))
        else:
            parts.append((ast.unparse(call), dtype))
    parts += [(ast.unparse(call.func), dtype) for call, dtype in _loaded_parts(tree)]
    dtype = max(whole, default=(0, ""))[1]
    return Changes(dtype, tuple(parts), tuple(sorted({*_stores(tree, pipes), *_callbacks(tree)})))


def _casts(tree: ast.Module) -> Iterator[tuple[ast.Call, ast.expr, str]]:
    """Yield calls that change a data type: what is changed, and to what."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if node.func.attr in DTYPES and not node.args and not node.keywords:
            yield node, _unchained(node.func.value), DTYPES[node.func.attr]
        elif node.func.attr in ("to", "type"):
            given = [*node.args, *(keyword.value for keyword in node.keywords)]
            named = [ast.unparse(value).rpartition(".")[2] for value in given if not isinstance(value, ast.Constant)]
            yield from ((node, _unchained(node.func.value), DTYPES[name]) for name in named if name in DTYPES)


def _unchained(owner: ast.expr) -> ast.expr:
    """Return what `.to(device)` and the like return: their own owner."""
    while isinstance(owner, ast.Call) and isinstance(owner.func, ast.Attribute) and owner.func.attr in ("to", "eval"):
        owner = owner.func.value
    return owner


def _loaded_parts(tree: ast.Module) -> Iterator[tuple[ast.Call, str]]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        owner = ast.unparse(node.func.value).rpartition(".")[2]
        if node.func.attr != "from_pretrained" or "Pipeline" in owner or owner.endswith("Scheduler"):
            continue
        for keyword in node.keywords:
            name = ast.unparse(keyword.value).rpartition(".")[2]
            if keyword.arg in ("dtype", "torch_dtype") and name in DTYPES:
                yield node, DTYPES[name]


def _stores(tree: ast.Module, pipes: set[str]) -> Iterator[str]:
    """Yield what is put in the place of a part's own, or of something that is not for others."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or not isinstance(node.ctx, ast.Store) or not _names(node) & pipes:
            continue
        deep = not isinstance(node.value, ast.Name)
        if deep or node.attr.startswith("_") or "guidance" in node.attr:
            yield f"`{ast.unparse(node)}` is replaced"


def _callbacks(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg in RUNNING and not _is_none(node.value):
            yield f"`{node.arg}` is given, by which the call is changed as it runs"


def _is_none(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is None


def _direct(tree: ast.Module) -> set[str]:
    """Return the names of the pipeline itself: what a loader returned, and the first argument of `generate`."""
    found = {"pipe"}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == "generate" and node.args.args:
            found.add(node.args.args[0].arg)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and _loads(node.value):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


def _loads(call: ast.Call) -> bool:
    text = ast.unparse(call.func)
    return text.endswith(".from_pretrained") and "Pipeline" in text


def _pipes(tree: ast.Module) -> set[str]:
    """Return the names that hold the pipeline or a part of it, by following what is bound to what."""
    found = _direct(tree)
    while True:
        more = {
            name.id
            for target, value in _bindings(tree)
            if _names(value) & found and not _of_images(value) and not _is_call_of(value, found)
            for name in ast.walk(target)
            if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)
        }
        if more <= found:
            return found
        found |= more


def _bindings(tree: ast.Module) -> Iterator[tuple[ast.expr, ast.expr]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            yield from ((target, node.value) for target in node.targets)
        elif isinstance(node, ast.NamedExpr | ast.AnnAssign):
            yield node.target, node.value or node.target
        elif isinstance(node, ast.For | ast.comprehension):
            yield node.target, node.iter


def _is_call_of(value: ast.expr, pipes: set[str]) -> bool:
    return isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id in pipes


def _names(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def _of_images(node: ast.AST) -> bool:
    return any(isinstance(part, ast.Attribute) and part.attr == "images" for part in ast.walk(node))
