"""Read generated code before it is run: hygiene and early feedback, not the wall; the wall is the sandbox."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Final

from diffopt.llm.generated import FUNCTION, LONGEST

MODULES: Final = frozenset(
    {"__future__", "collections", "dataclasses", "enum", "itertools", "libcst", "math", "re", "textwrap", "typing"}
)
"""What the code of a pass may import; of libcst also `libcst.matchers`."""

FORBIDDEN: Final = frozenset(
    {
        "__import__", "breakpoint", "compile", "delattr", "eval", "exec", "exit", "getattr", "globals", "input",
        "locals", "memoryview", "open", "print", "quit", "setattr", "vars",
    }
)  # fmt: skip
_DEEPEST = 40


def problems(code: str) -> tuple[str, ...]:
    """Return what is wrong with the code of a pass, one sentence each with its line; empty where nothing is."""
    if len(code) > LONGEST:
        return (f"{len(code)} characters are more than {LONGEST}",)
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return (f"line {getattr(error, 'lineno', 0)}: not Python: {error.args[0] if error.args else error}",)
    if _depth(tree) > _DEEPEST:
        return (f"nested deeper than {_DEEPEST}",)
    return tuple(dict.fromkeys((*_top(tree), *(found for node in ast.walk(tree) for found in _node(node)))))


def _top(tree: ast.Module) -> Iterator[str]:
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    if FUNCTION not in functions:
        yield f"there is no function {FUNCTION}(source: str) -> str"
    else:
        given = functions[FUNCTION].args
        if len(given.args) != 1 or given.posonlyargs or given.kwonlyargs or given.vararg or given.kwarg:
            yield f"line {functions[FUNCTION].lineno}: {FUNCTION} takes one argument, the source"
    for node in tree.body:
        kind = isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef)
        text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if not (kind or text or _is_constant(node)):
            yield f"line {node.lineno}: on the top level stand imports, functions, classes and constants only"


def _is_constant(node: ast.stmt) -> bool:
    if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
        return False
    value = node.value
    if isinstance(value, ast.Call):
        return ast.unparse(value.func) == "re.compile"
    try:
        found = ast.literal_eval(value)
    except (ValueError, TypeError):
        return False
    return not isinstance(found, list | dict | set)


def _node(node: ast.AST) -> Iterator[str]:
    line = getattr(node, "lineno", 0)
    match node:
        case ast.Import(names=names):
            for alias in names:
                yield from _module(alias.name, line)
        case ast.ImportFrom(module=module, level=level):
            yield from _module(module or "" if not level else "." * level, line)
        case ast.Name(id=name) if name in FORBIDDEN or (name.startswith("__") and name != "__all__"):
            yield f"line {line}: {name} may not be used"
        case ast.Attribute(attr=name, value=value) if name.startswith("_"):
            own = isinstance(value, ast.Name) and value.id == "self" and not name.startswith("__")
            init = isinstance(value, ast.Call) and name == "__init__"
            if not own and not init:
                yield f"line {line}: .{name} is private"
        case ast.Global() | ast.Nonlocal():
            yield f"line {line}: no state of the module: return what is found instead"
        case ast.ExceptHandler(body=[ast.Pass()]):
            yield f"line {line}: an error may not be passed over"
        case ast.AsyncFunctionDef() | ast.Await():
            yield f"line {line}: nothing is asynchronous here"


def _module(name: str, line: int) -> Iterator[str]:
    root = name.partition(".")[0]
    if root not in MODULES or (root == "libcst" and name not in ("libcst", "libcst.matchers")):
        yield f"line {line}: {name or 'this'} may not be imported; there is {', '.join(sorted(MODULES))}"


def _depth(tree: ast.AST) -> int:
    deepest, level = 0, [tree]
    while level:
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        deepest += 1
    return deepest
