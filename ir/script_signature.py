"""Signatures of the installed diffusers, read off its source without importing it."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path


@cache
def call_parameters(pipeline_class: str) -> Mapping[str, object]:
    """Return the parameters of a pipeline's `__call__` in order, with their defaults; `None` where there is none.

    Args:
        pipeline_class: class name, with or without the library before it.
    """
    name = pipeline_class.rpartition(".")[2]
    for file in _files(name):
        tree = ast.parse(file.read_bytes())
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and node.name == name:
                return _call_of(node)
    return {}


def _files(name: str) -> Iterator[Path]:
    """Yield the files that may define a pipeline class: the lazy import tables of diffusers name them."""
    spec = importlib.util.find_spec("diffusers")
    for root in (spec.submodule_search_locations or ()) if spec else ():
        for table in sorted(Path(root, "pipelines").rglob("__init__.py")):
            if f'"{name}"' not in table.read_text(encoding="utf-8"):
                continue
            for file in sorted(table.parent.glob("pipeline_*.py")):
                if f"class {name}(" in file.read_text(encoding="utf-8"):
                    yield file


def _call_of(node: ast.ClassDef) -> dict[str, object]:
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and method.name == "__call__":
            names = [argument.arg for argument in method.args.args[1:]]
            given: list[object] = [d.value if isinstance(d, ast.Constant) else None for d in method.args.defaults]
            return dict(zip(names, [*[None] * (len(names) - len(given)), *given], strict=True))
    return {}
