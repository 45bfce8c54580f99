"""What in an answer cannot be followed by reading it: names bound anew, code made while it runs, calls that may not happen."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator

ENTRIES = ("load", "generate")
HIDING = frozenset({"exec", "eval", "compile", "globals", "locals", "vars", "setattr", "delattr", "__import__"})
"""Builtins by which code changes what its text says."""

SIDEWAYS = frozenset(
    {"__call__", "__class__", "__dict__", "__globals__", "register_modules", "__setattr__", "__builtins__"}
)
"""Attributes by which a pipeline is called or changed past what is read."""

_JUDGES = "diffopt.bench"
UNREADABLE = ("builtins", "importlib", "ctypes", "gc", "inspect")
"""Modules by which code reaches what its text does not name."""

_OWN = ("diffusers", "diffopt")
_MAYBE = (ast.Lambda, ast.For, ast.While, ast.BoolOp, ast.IfExp, ast.comprehension, ast.Match)


def hidden(tree: ast.Module) -> list[str]:
    """Say by what the code does something else than its text says, each once."""
    found = [f"`{name}` is bound more than once" for name in ENTRIES if sum(b == name for b in _bound(tree)) > 1]
    found += [
        f"`{node.name}` has the decorator `{ast.unparse(mark)}`"
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name in ENTRIES
        for mark in node.decorator_list
        if not ast.unparse(mark).startswith("torch.")
    ]
    imported = dict(_imports(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in HIDING:
            found.append(f"`{node.id}` is used, and what it does cannot be read")
        elif isinstance(node, ast.Attribute) and node.attr in SIDEWAYS:
            found.append(f"`.{node.attr}` is used, and what it does cannot be read")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in SIDEWAYS:
            found.append(f"{node.value!r} is named, and what is done with it cannot be read")
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            root = imported.get(_root(node), "")
            if root.partition(".")[0] in _OWN:
                found.append(f"`{ast.unparse(node)}` of {root} is replaced")
        elif isinstance(node, ast.Attribute) and node.attr == "modules" and imported.get(_root(node)) == "sys":
            found.append(f"`{ast.unparse(node)}` is used, and what it does cannot be read")
    found += [
        f"it imports {name}, which judges it" for name in imported.values() if f"{name}.".startswith(_JUDGES + ".")
    ]
    found += [
        f"it imports {name}, and what is done with it cannot be read"
        for name in imported.values()
        if name.partition(".")[0] in UNREADABLE or name == "sys.modules"
    ]
    return sorted(set(found))


def calls_of(tree: ast.Module) -> str:
    """Return the calls of a script as text, one a line, without comments and with empty strings."""
    emptied = _Emptied().visit(ast.parse(ast.unparse(tree)))
    return "\n".join(ast.unparse(node) for node in ast.walk(emptied) if isinstance(node, ast.Call))


def maybe_called(tree: ast.Module, names: Collection[str]) -> list[str]:
    """Say which functions of these names are called where they may never be: after a return, in a loop, in what nobody calls."""
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    live = _live(tree)
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or ast.unparse(node.func).rpartition(".")[2] not in names:
            continue
        name = ast.unparse(node.func).rpartition(".")[2]
        above: ast.AST = node
        while (above := parents.get(above, tree)) is not tree:
            if isinstance(above, _MAYBE):
                found.append(f"`{name}` is called in a {type(above).__name__.lower()}, and may not be")
            elif isinstance(above, ast.FunctionDef):
                if above.name not in live:
                    found.append(f"`{name}` is called in `{above.name}`, which nothing calls")
                elif any(isinstance(other, ast.Return) and other.lineno < node.lineno for other in ast.walk(above)):
                    found.append(f"`{name}` is called after a return")
                break
    return sorted(set(found))


class _Emptied(ast.NodeTransformer):
    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        return ast.Constant("") if isinstance(node.value, str) else node


def _bound(tree: ast.Module) -> Iterator[str]:
    """Yield the names that the module's own statements bind, and those that functions declare global."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
            yield from (name for part in ast.walk(node) if isinstance(part, ast.Global) for name in part.names)
            continue
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        if isinstance(node, ast.alias):
            yield node.asname or node.name
        waiting += ast.iter_child_nodes(node)


def _imports(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield the names that imports bind, and what each is of."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((part.asname or part.name.partition(".")[0], part.name) for part in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((part.asname or part.name, f"{node.module}.{part.name}") for part in node.names)


def _live(tree: ast.Module) -> set[str]:
    """Return the functions that are named, directly or by way of others, in the entries or the module's own statements."""
    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    live: set[str] = set()
    waiting: list[ast.AST] = [node for node in tree.body if not isinstance(node, ast.FunctionDef)]
    waiting += [functions[name] for name in ENTRIES if name in functions]
    live |= {name for name in ENTRIES if name in functions}
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Name) and node.id in functions and node.id not in live:
            live.add(node.id)
            waiting.append(functions[node.id])
        waiting += [part for part in ast.iter_child_nodes(node) if not isinstance(part, ast.FunctionDef)]
    return live


def _root(node: ast.Attribute) -> str:
    inner: ast.expr = node
    while isinstance(inner, ast.Attribute):
        inner = inner.value
    return inner.id if isinstance(inner, ast.Name) else ""
