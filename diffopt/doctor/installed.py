"""What the installed libraries say of themselves, read off their source; nothing of them is imported."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from diffopt.ir.pipeline_sources import CLASS_LINE, file_of, parsed


@cache
def root_of(library: str) -> Path | None:
    """Return the folder of an installed library; `None` where it is not installed."""
    try:
        spec = importlib.util.find_spec(library)
    except (ImportError, ValueError):
        return None
    folders = list(spec.submodule_search_locations or ()) if spec else []
    return Path(folders[0]) if folders else None


@cache
def class_files() -> Mapping[str, Path]:
    """Return the file of every class of diffusers; reads all of its files once, and its own note of them later."""
    root = root_of("diffusers")
    if root is None:
        return {}
    state = root.stat(), (root / "__init__.py").stat()
    user = os.getuid() if hasattr(os, "getuid") else 0
    key = "-".join(str(n) for s in state for n in (s.st_ino, s.st_mtime_ns))
    note = Path(tempfile.gettempdir(), f"diffopt-classes-{user}-{key}.json")
    try:
        if not hasattr(os, "getuid") or note.stat().st_uid == user:
            return {name: root / file for name, file in json.loads(note.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, AttributeError, TypeError):
        pass
    found: dict[str, str] = {}
    for file in sorted(root.rglob("*.py")):
        # stand-ins for classes whose library is missing have the same names
        if "dummy" not in file.name:
            for match in CLASS_LINE.finditer(file.read_bytes()):
                found.setdefault(match[1].decode(), file.relative_to(root).as_posix())
    try:
        descriptor, name = tempfile.mkstemp(dir=note.parent)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            json.dump(found, stream)
        os.replace(name, note)
    except OSError:
        pass  # it will be read again next time
    return {name: root / file for name, file in found.items()}


@cache
def class_node(name: str) -> ast.ClassDef | None:
    """Return the definition of a class of diffusers."""
    file = (file_of(name) if name.endswith("Pipeline") else None) or class_files().get(name)
    if file is None:
        return None
    return next((n for n in parsed(file).body if isinstance(n, ast.ClassDef) and n.name == name), None)


@cache
def ancestry(name: str) -> tuple[ast.ClassDef, ...]:
    """Return a class of diffusers and its bases there, nearest first."""
    found: dict[str, ast.ClassDef] = {}
    todo = [name]
    while todo:
        current = todo.pop(0)
        node = class_node(current) if current not in found else None
        if node is not None:
            found[current] = node
            todo += [ast.unparse(base).rpartition(".")[2] for base in node.bases]
    return tuple(found.values())


@cache
def members(name: str) -> frozenset[str]:
    """Return the names that a class of diffusers and its bases define, and those of the parameters of `__init__`."""
    found: set[str] = set()
    for node in ancestry(name):
        for part in node.body:
            if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
                found.add(part.name)
                found |= {a.arg for a in part.args.args} if part.name == "__init__" else set()
            elif isinstance(part, ast.Assign):
                found |= {target.id for target in part.targets if isinstance(target, ast.Name)}
            elif isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
                found.add(part.target.id)
        for place in ast.walk(node):
            if isinstance(place, ast.Attribute) and isinstance(place.ctx, ast.Store):
                found.add(place.attr)
    return frozenset(found)


@cache
def init_parameters(name: str) -> frozenset[str]:
    """Return the parameters of the constructor of a class of diffusers."""
    for node in ancestry(name):
        for part in node.body:
            if isinstance(part, ast.FunctionDef) and part.name == "__init__":
                return frozenset(a.arg for a in (*part.args.args[1:], *part.args.kwonlyargs))
    return frozenset()


@cache
def knows_flow(scheduler: str) -> bool:
    """Say whether the source of a scheduler speaks of flows at all."""
    return any(re.search("flow|rectified|RF", ast.unparse(node)) for node in ancestry(scheduler)[:1])


@cache
def extra_arguments(name: str) -> frozenset[str] | None:
    """Return the arguments that a pipeline's call takes out of its `**kwargs`; `None` where that cannot be read."""
    for node in ancestry(name):
        for part in node.body:
            if isinstance(part, ast.FunctionDef) and part.name == "__call__":
                return _taken(part, part.args.kwarg.arg) if part.args.kwarg is not None else frozenset()
    return None


def _taken(function: ast.FunctionDef, kwargs: str) -> frozenset[str] | None:
    code = [part for part in function.body if not (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))]
    text = " ".join(map(ast.unparse, code))
    uses = len(re.findall(rf"\b{kwargs}\b", text))
    reads = [*re.findall(rf"\b{kwargs}\.(?:pop|get)\('(\w+)'", text), *re.findall(rf"'(\w+)' in {kwargs}\b", text)]
    return frozenset(reads) if uses == len(reads) else None


def takes_any(name: str) -> bool:
    """Say whether a pipeline's call takes arguments that it does not know, and ignores them."""
    calls = (part for node in ancestry(name) for part in node.body if isinstance(part, ast.FunctionDef))
    call = next((part for part in calls if part.name == "__call__"), None)
    return call is not None and call.args.kwarg is not None


@cache
def switches_gradients_off(name: str, method: str) -> bool:
    """Say whether a method of a class of diffusers is decorated with `torch.no_grad()` or the like."""
    for node in ancestry(name):
        for part in node.body:
            if isinstance(part, ast.FunctionDef) and part.name == method:
                marks = " ".join(map(ast.unparse, part.decorator_list))
                return "no_grad" in marks or "inference_mode" in marks
    return False


@cache
def opens_cache_context(pipeline: str) -> bool:
    """Say whether a pipeline class, or a base of it, opens the context that step caches keep their state in."""
    return any("cache_context" in ast.unparse(node) for node in ancestry(pipeline) if node.name != "DiffusionPipeline")


def has_cache(model: str) -> bool:
    """Say whether a model class of diffusers has `enable_cache`."""
    return any(node.name == "CacheMixin" for node in ancestry(model))


@cache
def caches_with_context() -> frozenset[str]:
    """Return the configurations of caches that keep state in `cache_context`: their hooks ask a `StateManager`."""
    root = root_of("diffusers")
    found = set()
    for file in sorted((root / "hooks").glob("*.py")) if root else ():
        text = file.read_text(encoding="utf-8")
        if "StateManager(" in text:
            found |= {m[1] for m in re.finditer(r"^class (\w+CacheConfig)\b", text, re.MULTILINE)}
    return frozenset(found)


@cache
def names_of(module: str) -> frozenset[str] | None:
    """Return what `from MODULE import ...` may name; `None` where that cannot be read off the source for sure."""
    library, *parts = module.split(".")
    root = root_of(library)
    if root is None:
        return None
    place = root.joinpath(*parts)
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    if not file.is_file():
        return None
    names: set[str] = set()
    for name in _bound(parsed(file), module if place.is_dir() else module.rpartition(".")[0]):
        if name.startswith("*"):
            more = names_of(name[1:])
            if more is None:
                return None
            names |= more
        names.add(name)
    if "__getattr__" in names:
        return None
    if place.is_dir():
        names |= {child.stem for child in place.iterdir() if child.suffix == ".py" or (child / "__init__.py").is_file()}
    return frozenset(names)


def _bound(tree: ast.AST, package: str) -> Iterator[str]:
    """Yield the names that a module binds, in any branch of it; `*MODULE` where it takes all of another one.

    What a lazy import table hands out is under `if TYPE_CHECKING` too, so that the table need not be read.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
            if "dummy" not in (node.module or ""):
                base = package.rsplit(".", node.level - 1)[0] if node.level > 1 else package
                yield "*" + (f"{base}.{node.module}" if node.level else node.module or "")
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
