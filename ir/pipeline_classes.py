"""What the installed diffusers says of its pipeline classes: components, call parameters, tasks, examples."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TypeAlias

from diffopt.ir.pipeline_examples import example_docs
from diffopt.ir.pipeline_sources import class_lines, file_of, imports_of, parsed, pipelines_root, relative

__all__ = ["Default", "PipelineClass", "auto_pipelines", "example_docs", "pipeline_class", "pipeline_classes"]

Default: TypeAlias = object
"""The default of a parameter where it is a literal; `None` where it is none, or there is none."""

ROOT = "DiffusionPipeline"
ANYTHING = "typing.Any"
NO_COMPONENTS = frozenset({"builtins.bool", "builtins.int", "builtins.float", "builtins.str", "builtins.dict"})


@dataclass(frozen=True)
class PipelineClass:
    """A pipeline class of the installed diffusers, as its source has it.

    Args:
        file: path inside diffusers, `pipelines/flux/pipeline_flux.py`.
        components: name to the classes its annotation allows, as `model_index.json` spells them; a name without an
            annotation has none.
        optional: components that a pipeline may be without.
        settings: other parameters of `__init__`, with their defaults; `model_index.json` holds them too.
        call: parameters of `__call__` in order, without `self`, with their defaults.
        call_types: the annotations of those parameters, in the source's words.
        strength_in_parts: an image is noised for `steps * strength` steps, and not for a whole number of them: what is
            left of the steps is rounded, not what is taken.
        multiple: what height and width must be multiples of; 0 where the source names no number, or only warns.
    """

    name: str
    file: str
    bases: tuple[str, ...]
    components: Mapping[str, tuple[str, ...]]
    optional: frozenset[str]
    call: Mapping[str, Default]
    settings: Mapping[str, Default] = field(default_factory=dict)
    call_types: Mapping[str, str] = field(default_factory=dict)
    strength_in_parts: bool = False
    multiple: int = 0


@cache
def pipeline_class(name: str) -> PipelineClass | None:
    """Return a pipeline class by its name, with or without the library before it; `None` where there is none."""
    name = name.rpartition(".")[2]
    line = _line_of(name)
    if line is None or name == ROOT or not _is_pipeline(name):
        return None
    families = _ancestry(name)
    init = next((n for _, c in families if (n := _method(c, "__init__")) is not None), None)
    call = next((n for _, c in families if (n := _method(c, "__call__")) is not None), None)
    place = next((f for f, c in families if _method(c, "__init__") is not None), line[0])
    given = _parameters(init) if init is not None else {}
    registered = {key for _, node in families for key in _registered(node)}
    parts = {
        key: _classes(annotation, imports_of(place))
        for key, (annotation, _) in given.items()
        if key in registered or (not registered and _may_be_component(annotation, imports_of(place)))
    }
    absent = {key for key in parts if _is_optional(given[key])}
    return PipelineClass(
        name=name,
        file=relative(line[0]),
        bases=line[1],
        components=parts,
        optional=frozenset(absent | {key for _, node in families for key in _optional_components(node)} & set(parts)),
        call={key: _value(default) for key, (_, default) in (_parameters(call) if call else {}).items()},
        settings={key: _value(default) for key, (_, default) in given.items() if key not in parts},
        call_types={
            key: ast.unparse(annotation)
            for key, (annotation, _) in (_parameters(call) if call else {}).items()
            if annotation is not None
        },
        multiple=_multiple(next((n for _, c in families if (n := _method(c, "check_inputs")) is not None), None)),
        strength_in_parts=_strength_in_parts(
            next((n for _, c in families if (n := _method(c, "get_timesteps")) is not None), None)
        ),
    )


@cache
def pipeline_classes() -> tuple[str, ...]:
    """Return the names of all `DiffusionPipeline` subclasses, in the order of the alphabet."""
    return tuple(sorted(name for name in class_lines() if name != ROOT and _is_pipeline(name)))


@cache
def auto_pipelines() -> Mapping[str, Mapping[str, str]]:
    """Return, for each `AutoPipelineFor...`, the class it builds for each class that a model may name."""
    root = pipelines_root()
    file = root / "auto_pipeline.py" if root else None
    if file is None or not file.is_file():
        return {}
    tables: dict[str, dict[str, str]] = {}
    for node in (inner for top in parsed(file).body for inner in (top, *getattr(top, "body", ()))):
        if not isinstance(node, ast.Assign):
            continue
        target = node.targets[0]
        if isinstance(target, ast.Name) and target.id.endswith("_MAPPING") and isinstance(node.value, ast.Call):
            pairs = [e for a in node.value.args for e in getattr(a, "elts", ()) if isinstance(e, ast.Tuple)]
            tables.setdefault(target.id, {}).update({str(_value(p.elts[0])): ast.unparse(p.elts[1]) for p in pairs})
        elif isinstance(target, ast.Subscript) and isinstance(target.value, ast.Name) and target.value.id in tables:
            tables[target.value.id][str(_value(target.slice))] = ast.unparse(node.value)
    found: dict[str, dict[str, str]] = {}
    for owner in parsed(file).body:
        if isinstance(owner, ast.ClassDef) and owner.name.startswith("AutoPipelineFor"):
            own = next((tables[n.id] for n in ast.walk(owner) if isinstance(n, ast.Name) and n.id in tables), {})
            # The public tables come first, as diffusers asks them: a class may stand in several.
            found[owner.name] = {
                model: own[key] for table in reversed(tables.values()) for key, model in table.items() if key in own
            }
    return found


def _line_of(name: str) -> tuple[Path, tuple[str, ...]] | None:
    """Return file and bases of a class, reading few files where the import tables name it."""
    file = file_of(name)
    node = _class_node(file, name) if file else None
    if file is None or node is None:
        return None
    return file, tuple(ast.unparse(base).rpartition(".")[2] for base in node.bases)


def _class_node(file: Path, name: str) -> ast.ClassDef | None:
    return next((n for n in parsed(file).body if isinstance(n, ast.ClassDef) and n.name == name), None)


@cache
def _is_pipeline(name: str) -> bool:
    if name == ROOT:
        return True
    known = class_lines.cache_info().currsize
    line = class_lines().get(name) if known else _line_of(name) if name.endswith("Pipeline") else None
    if line is None and not known:
        line = class_lines().get(name) if not name.endswith("Mixin") else None
    return line is not None and any(_is_pipeline(base) for base in line[1] if base != name)


def _ancestry(name: str) -> list[tuple[Path, ast.ClassDef]]:
    """Return a class and its bases in diffusers' pipelines, nearest first, without `DiffusionPipeline` itself."""
    found: list[tuple[Path, ast.ClassDef]] = []
    todo = [name]
    while todo and len(found) < 16:
        current = todo.pop(0)
        file = file_of(current) if current == name or (current.endswith("Pipeline") and current != ROOT) else None
        node = _class_node(file, current) if file else None
        if file is not None and node is not None:
            found.append((file, node))
            todo += [ast.unparse(base).rpartition(".")[2] for base in node.bases]
    return found


def _method(node: ast.ClassDef, name: str) -> ast.FunctionDef | None:
    return next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == name), None)


def _parameters(method: ast.FunctionDef) -> dict[str, tuple[ast.expr | None, ast.expr | None]]:
    """Return annotation and default of each parameter but `self`."""
    arguments = method.args
    named = [*arguments.posonlyargs, *arguments.args][1:]
    defaults = [*[None] * (len(named) - len(arguments.defaults)), *arguments.defaults][-len(named) or None :]
    pairs = [*zip(named, defaults, strict=False), *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    return {argument.arg: (argument.annotation, default) for argument, default in pairs}


def _registered(node: ast.ClassDef) -> Iterator[str]:
    """Yield the names given to `self.register_modules`."""
    init = _method(node, "__init__")
    for call in ast.walk(init) if init is not None else ():
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "register_modules":
            yield from (keyword.arg for keyword in call.keywords if keyword.arg)


def _strength_in_parts(method: ast.FunctionDef | None) -> bool:
    """Say whether `get_timesteps` takes `min(steps * strength, steps)` as it is, without `int` around the product."""
    return method is not None and any(
        isinstance(call, ast.Call)
        and ast.unparse(call.func) == "min"
        and any(isinstance(a, ast.BinOp) and isinstance(a.op, ast.Mult) for a in call.args)
        for call in ast.walk(method)
    )


def _multiple(method: ast.FunctionDef | None) -> int:
    """Return the number of `if height % 8 != 0 or width % 8 != 0: raise`."""
    for test in ast.walk(method) if method is not None else ():
        if not isinstance(test, ast.If) or not any(isinstance(line, ast.Raise) for line in test.body):
            continue
        for node in ast.walk(test.test):
            if (
                isinstance(node, ast.BinOp)
                and isinstance(node.op, ast.Mod)
                and ast.unparse(node.left) == "height"
                and isinstance(node.right, ast.Constant)
                and isinstance(node.right.value, int)
            ):
                return node.right.value
    return 0


def _optional_components(node: ast.ClassDef) -> Iterator[str]:
    for statement in node.body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "_optional_components":
            names = _value(statement.value)
            yield from map(str, names if isinstance(names, list | tuple) else ())


def _is_optional(parameter: tuple[ast.expr | None, ast.expr | None]) -> bool:
    return parameter[1] is not None and _value(parameter[1]) is None


def _classes(annotation: ast.expr | None, names: Mapping[str, str]) -> tuple[str, ...]:
    """Return the classes an annotation allows, the first named first."""
    match annotation:
        case ast.Constant(value=str() as text):
            try:
                return _classes(ast.parse(text, mode="eval").body, names)
            except SyntaxError:
                return ()
        case ast.Name(id=name):
            dotted = names.get(name, f"builtins.{name}")
            return () if dotted == ANYTHING else (dotted,)
        case ast.Attribute():
            return (ast.unparse(annotation),)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return tuple(dict.fromkeys((*_classes(left, names), *_classes(right, names))))
        case ast.Subscript(slice=inner):
            return _classes(inner, names)
        case ast.Tuple(elts=parts) | ast.List(elts=parts):
            return tuple(dict.fromkeys(c for part in parts for c in _classes(part, names)))
    return ()


def _may_be_component(annotation: ast.expr | None, names: Mapping[str, str]) -> bool:
    found = _classes(annotation, names)
    return bool(found) and not NO_COMPONENTS.issuperset(found)


def _value(node: ast.expr | None) -> Default:
    try:
        return None if node is None else ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError):
        return None
