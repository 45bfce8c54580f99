"""Where the installed diffusers defines each pipeline class: read off its files, never imported."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

CLASS_LINE = re.compile(rb"^class (\w+)\b(?:\(([^)]*)\))?", re.MULTILINE)
FOLDER = re.compile(r'(?:_import_structure\[)?"(\w+)"\]?(?:\.extend\(|: *\[| = \[)')
"""An entry of the lazy import table: `_import_structure["flux"] = [`, `.extend([`, or `"flux": [`."""


@cache
def pipelines_root() -> Path | None:
    """Return the folder `diffusers/pipelines`; `None` where diffusers is not installed."""
    spec = importlib.util.find_spec("diffusers")
    roots = list(spec.submodule_search_locations or ()) if spec else []
    folder = Path(roots[0], "pipelines") if roots else None
    return folder if folder is not None and folder.is_dir() else None


@cache
def file_of(class_name: str) -> Path | None:
    """Return the file that defines a class of `diffusers/pipelines`."""
    line = re.compile(rb"^class %s\b" % re.escape(class_name.encode()), re.MULTILINE)
    for folder in _likely_folders(class_name):
        for file in sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]:
            if file.is_file() and line.search(file.read_bytes()):
                return file
    found = class_lines().get(class_name)
    return found[0] if found else None


@cache
def class_lines() -> Mapping[str, tuple[Path, tuple[str, ...]]]:
    """Return the file and the bases of every class of `diffusers/pipelines`; reads all of its files once."""
    root = pipelines_root()
    found: dict[str, tuple[Path, tuple[str, ...]]] = {}
    for file in sorted(root.rglob("*.py")) if root else ():
        for match in CLASS_LINE.finditer(file.read_bytes()):
            bases = (match[2] or b"").decode().replace("\n", " ").split(",")
            names = tuple(base.strip().rpartition(".")[2] for base in bases if base.strip() and "=" not in base)
            found.setdefault(match[1].decode(), (file, names))
    return found


@cache
def parsed(file: Path) -> ast.Module:
    """Return the syntax tree of a file of diffusers."""
    return ast.parse(file.read_bytes())


def relative(file: Path) -> str:
    """Return a file's path inside diffusers, `pipelines/flux/pipeline_flux.py`."""
    root = pipelines_root()
    return file.relative_to(root.parent).as_posix() if root else file.as_posix()


@cache
def imports_of(file: Path) -> Mapping[str, str]:
    """Return what each imported name of a file stands for, as `model_index.json` would spell it.

    Classes of diffusers are `diffusers.X`, those beside a pipeline `<its folder>.X`, others `<library>.X`.
    """
    tree, found = parsed(file), dict[str, str]()
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            found[node.name] = f"{file.parent.name}.{node.name}"
    for statement in (n for top in tree.body for n in (top, *getattr(top, "body", ()), *getattr(top, "orelse", ()))):
        if not isinstance(statement, ast.ImportFrom):
            continue
        for alias in statement.names:
            if statement.level == 0:
                library = (statement.module or "").split(".")[0]
            elif statement.level == 1 or (statement.module or "").startswith("pipelines."):
                library = _folder_of(file, statement)
            else:
                library = "diffusers" if _is_public(file, statement) else _folder_of(file, statement)
            found.setdefault(alias.asname or alias.name, f"{library}.{alias.name}")
    return found


def _is_public(file: Path, statement: ast.ImportFrom) -> bool:
    """Tell whether a relative import leaves `diffusers/pipelines`."""
    root = pipelines_root()
    return root is not None and statement.level > len(file.relative_to(root).parts)


def _folder_of(file: Path, statement: ast.ImportFrom) -> str:
    """Return the name of the folder that holds what a relative import names."""
    place = file.parents[statement.level - 1].joinpath(*(statement.module or "").split("."))
    return place.name if place.is_dir() else place.parent.name


def _likely_folders(class_name: str) -> list[Path]:
    """Return the folders under whose name the lazy import tables list a class."""
    root = pipelines_root()
    if root is None:
        return []
    found = []
    for table in (root / "__init__.py", root / "deprecated" / "__init__.py"):
        text = table.read_text(encoding="utf-8") if table.is_file() else ""
        place = text.find(f'"{class_name}"')
        if place >= 0:
            entries = [m[1] for m in FOLDER.finditer(text, 0, place)]
            found += [table.parent / entries[-1]] if entries else []
    return found
