"""Constants of the installed diffusers that a script imports, read off its source."""

from __future__ import annotations

import ast
import difflib
import importlib.util
import re
from functools import cache
from pathlib import Path


@cache
def library_constant(name: str) -> object | None:
    """Return a constant by its dotted name, `diffusers.pipelines.wan.NEGATIVE`; `None` where there is none."""
    steps = name.split(".")
    spec = importlib.util.find_spec("diffusers") if steps[0] == "diffusers" else None
    roots = list(spec.submodule_search_locations or ()) if spec else []
    for root in roots:
        place = Path(root, *steps[1:-1])
        for file in (place.with_suffix(".py"), place / "__init__.py"):
            if len(steps) > 2 and file.is_file():
                return _assigned(ast.parse(file.read_bytes()), steps[-1])
    return None


@cache
def is_exported(name: str) -> bool:
    """Say whether `from diffusers import name` works with the installed version."""
    spec = importlib.util.find_spec("diffusers")
    return bool(spec and spec.origin) and f'"{name}"' in _table(str(spec.origin) if spec else "")


@cache
def nearest_export(name: str) -> str:
    """Return the exported name that is most like another; empty where none is."""
    spec = importlib.util.find_spec("diffusers")
    names = re.findall(r'"(\w+)"', _table(str(spec.origin))) if spec and spec.origin else []
    return next(iter(difflib.get_close_matches(name, names, 1, 0.4)), "")


@cache
def _table(file: str) -> str:
    return Path(file).read_text(encoding="utf-8")


def _assigned(tree: ast.Module, name: str) -> object | None:
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            try:
                value: object = ast.literal_eval(node.value)
            except ValueError:
                return None
            return value
    return None
