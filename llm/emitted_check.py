"""Compare an emitted file before and after generated code went over it: only what was declared may differ."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from typing import Final

from diffopt.llm.generated import Part

LIBRARIES: Final = frozenset(
    {"accelerate", "contextlib", "dataclasses", "diffusers", "itertools", "math", "numpy", "torch", "transformers",
     "typing"}
)  # fmt: skip
"""What emitted code may come to import."""

FORBIDDEN: Final = frozenset(
    {
        "Event", "Generator", "Process", "Stream", "Thread", "ThreadPoolExecutor", "__import__", "breakpoint", "cache",
        "compile_with_cache", "cpp_extension", "ctypes", "environ", "eval", "exec", "exit", "getenv", "globals", "hub",
        "input", "load_inline", "locals", "lru_cache", "manual_seed", "monotonic", "multiprocessing", "numpy_load",
        "open", "perf_counter", "pickle", "popen", "read_bytes", "read_text", "remove", "rmtree", "sleep", "socket",
        "subprocess", "synchronize", "sys", "system", "threading", "time", "unlink", "urandom", "vars", "write_bytes",
        "write_text",
    }
)  # fmt: skip
"""Names that may not come into emitted code: files, processes, clocks, streams, seeds, caches across calls."""

_METHODS: Final = frozenset({"__call__", "__class__", "__get__", "__init__", "__name__", "__wrapped__"})


def problems(before: str, after: str, touches: Collection[Part]) -> tuple[str, ...]:
    """Return what stands against the change, one sentence each; empty where nothing does."""
    old = ast.parse(before)
    try:
        new = ast.parse(after)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return (f"what it wrote is not Python: {error}",)
    return tuple(dict.fromkeys((*_parts(old, new, touches), *_names(old, new), *_imports(old, new), *_call(old, new))))


def changed(before: str, after: str) -> frozenset[Part]:
    """Return the parts of a file that differ; both texts parse."""
    old, new = _split(ast.parse(before)), _split(ast.parse(after))
    return frozenset(part for part in old if old[part] != new[part])


def _split(tree: ast.Module) -> dict[Part, list[str]]:
    parts: dict[Part, list[str]] = {"imports": [], "constants": [], "functions": [], "load": []}
    for node in tree.body:
        part: Part = "constants"
        if isinstance(node, ast.Import | ast.ImportFrom):
            part = "imports"
        elif isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            part = "load" if node.name == "load" else "functions"
        parts[part].append(ast.dump(node))
    return parts


def _parts(old: ast.Module, new: ast.Module, touches: Collection[Part]) -> Iterator[str]:
    before, after = _split(old), _split(new)
    for part in before:
        if before[part] != after[part] and part not in touches:
            yield f"it changes the {part} of the file and declares {', '.join(touches)}"
    if len(after["load"]) != len(before["load"]):
        yield "there is one function load before, and not after"


def _names(old: ast.Module, new: ast.Module) -> Iterator[str]:
    for name in sorted(_used(new) - _used(old)):
        if name in FORBIDDEN or (name.startswith("__") and name not in _METHODS):
            yield f"{name} may not come into emitted code"


def _used(tree: ast.Module) -> set[str]:
    found = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    found |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr != "eval"}  # a mode
    return found | {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}


def _imports(old: ast.Module, new: ast.Module) -> Iterator[str]:
    for name in sorted(_imported(new) - _imported(old)):
        if name.partition(".")[0] not in LIBRARIES:
            yield f"{name} may not be imported; there is {', '.join(sorted(LIBRARIES))}"


def _imported(tree: ast.Module) -> set[str]:
    found = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return found | {node.module or "." for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}


def _call(old: ast.Module, new: ast.Module) -> Iterator[str]:
    """What a call is by default, and what `load` takes, is the catalogue's to change."""
    if _defaults(old) != _defaults(new):
        yield "the call's defaults (steps, guidance, size) are not a rewrite's to change; there are passes for that"
    if _signature(old) != _signature(new):
        yield "load must take the arguments it took"


def _defaults(tree: ast.Module) -> list[str]:
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    return [ast.dump(node) for node in calls if isinstance(node.func, ast.Name) and node.func.id == "call_defaults"]


def _signature(tree: ast.Module) -> list[str]:
    return [ast.dump(node.args) for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "load"]
