"""Where values come into a script: parameters, command line options, fields of classes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import libcst as cst

from diffopt.ir.script_callers import callers, handed_over, meant
from diffopt.ir.script_kinds import CommandLine, Instance, Known, LocalClass, LocalFunction, Missing, Value

if TYPE_CHECKING:
    from diffopt.ir.script_values import Values

__all__ = [
    "callers",
    "class_attribute",
    "class_default",
    "command_line_option",
    "declares",
    "fields",
    "handed",
    "meant",
    "methods",
    "parameter",
    "returned",
    "returns",
]

CONVERSIONS = {"builtins.int": int, "builtins.float": float, "builtins.str": str, "pathlib.Path": str}
FIELD_CALLS = ("Field", "field", "Option", "Argument", "Query", "Form", "Body", "Input")
"""Calls that wrap a default: pydantic, dataclasses, typer, FastAPI."""


def parameter(values: Values, node: cst.Param) -> Value:
    """Return what a parameter is worth: what all callers in the script give, else its default."""
    script = values.script
    function = script.enclosing(node, cst.FunctionDef, cst.Lambda)
    assert isinstance(function, cst.FunctionDef | cst.Lambda)
    name = node.name.value
    if isinstance(function, cst.FunctionDef):
        option = _click_option(values, function, name)
        if option is not None:
            return _option_default(values, option, name, node)
    default = _default(values, node)
    found = [default if given is node else given for given in handed_over(values, function, node)]
    if not found:
        return default
    return values.agree([v if isinstance(v, Known | Missing) else values.of(v) for v in found], node)


def _default(values: Values, node: cst.Param) -> Value:
    if node.default is not None:
        return _unwrapped(values, node.default)
    if node.annotation is not None:
        kind = values.of(node.annotation.annotation)
        if isinstance(kind, Known) and isinstance(kind.value, LocalClass):
            return Known(Instance(kind.value.node), node)
        if values.symbol(node.annotation.annotation) == "argparse.Namespace":
            return Known(CommandLine(), node)
    return Missing(f"parameter `{node.name.value}` has no default", node)


def _unwrapped(values: Values, default: cst.BaseExpression) -> Value:
    """Look into `typer.Option(30, ...)` and its like."""
    if not isinstance(default, cst.Call):
        return values.of(default)
    name = default.func.attr if isinstance(default.func, cst.Attribute) else default.func
    if not isinstance(name, cst.Name) or name.value not in FIELD_CALLS:
        return values.of(default)
    for arg in default.args:
        if (arg.keyword is None and not arg.star) or (arg.keyword is not None and arg.keyword.value == "default"):
            return values.of(arg.value)
        if arg.keyword is not None and arg.keyword.value == "default_factory":
            return Missing("its default is made by a factory", default)
    return Missing("it has no default", default)


def handed(values: Values, node: cst.Param) -> list[cst.BaseExpression]:
    """Return what callers in the script give for a parameter, its default where they give nothing."""
    function = values.script.enclosing(node, cst.FunctionDef)
    if function is None:
        return []
    given = [node.default if value is node else value for value in handed_over(values, function, node)]
    return list(dict.fromkeys(value for value in given if isinstance(value, cst.BaseExpression)))


def returned(values: Values, function: cst.FunctionDef, call: cst.Call) -> Value:
    """Return what a function of the script returns, where all its returns agree."""
    found = [values.of(r.value) for r in returns(values, function) if r.value is not None]
    if not found:
        return Missing(f"`{function.name.value}` returns nothing that is known", call)
    return values.agree(found, call)


def returns(values: Values, function: cst.FunctionDef) -> Iterator[cst.Return]:
    """Yield the return statements of a function itself, not of functions in it."""
    for node in values.script.all(cst.Return):
        if values.script.enclosing(node, cst.FunctionDef) is function:
            yield node


def declares(values: Values, name: str) -> bool:
    """Say whether the command line has an option that ends up under a name."""
    return any(_destination(values, call) == name for call in values.calls_by_name.get("add_argument", ()))


def command_line_option(values: Values, name: str, node: cst.BaseExpression) -> Value:
    """Return the default of the command line option that ends up under a name."""
    declared = values.calls_by_name.get("add_argument", ())
    calls = [call for call in declared if _destination(values, call) == name]
    for place, _ in values.attribute_targets.get(name, ()):
        owner = values.of(place.value)
        if place is not node and isinstance(owner, Known) and isinstance(owner.value, CommandLine):
            return Missing(f"`{name}` of the command line is assigned again", place)
    for call in values.calls_by_name.get("set_defaults", ()):
        for arg in call.args:
            if arg.keyword is not None and arg.keyword.value == name:
                return values.of(arg.value)
    if not calls:
        return Missing(f"no command line option `{name}` is declared in this file", node)
    return values.agree([_option_default(values, call, name, node) for call in calls], node)


def _destination(values: Values, call: cst.Call) -> str:
    for arg in call.args:
        if arg.keyword is not None and arg.keyword.value == "dest":
            dest = values.of(arg.value)
            return str(dest.value) if isinstance(dest, Known) else ""
    return _option_name(values, call)


def _option_name(values: Values, call: cst.Call) -> str:
    """Return the Python name that argparse and click derive from an option's flags."""
    flags = [v.value for a in call.args if a.keyword is None and isinstance(v := values.of(a.value), Known)]
    words = [flag for flag in flags if isinstance(flag, str)]
    bare = [word for word in words if not word.startswith("-")]
    long = [word for word in words if word.startswith("--")]
    chosen = next(iter([*bare, *long, *words]), "")
    return chosen.split("/")[0].lstrip("-").replace("-", "_")


def _option_default(values: Values, call: cst.Call, name: str, node: cst.CSTNode) -> Value:
    named = {arg.keyword.value: arg.value for arg in call.args if arg.keyword is not None}
    flag = f"option `{name.replace('_', '-')}` has no default"
    if "default" in named:
        value = values.of(named["default"])
        convert = CONVERSIONS.get(values.symbol(named["type"])) if "type" in named else None
        if isinstance(value, Known) and isinstance(value.value, str) and convert is not None:
            return Known(convert(value.value), value.origin)
        return value
    action = values.of(named["action"]) if "action" in named else None
    if isinstance(action, Known) and action.value in ("store_true", "store_false"):
        return Known(action.value == "store_false", call)
    if "is_flag" in named:
        return Known(False, call)
    first = values.of(call.args[0].value) if call.args and call.args[0].keyword is None else None
    positional = isinstance(first, Known) and isinstance(first.value, str) and not first.value.startswith("-")
    if (
        "required" in named
        or positional
        or (isinstance(call.func, cst.Attribute) and call.func.attr.value == "argument")
    ):
        return Missing(flag, call)
    return Known(None, call)


def _click_option(values: Values, function: cst.FunctionDef, name: str) -> cst.Call | None:
    for decorator in function.decorators:
        call = decorator.decorator
        if not isinstance(call, cst.Call) or values.symbol(call.func) not in ("click.option", "click.argument"):
            continue
        if _option_name(values, call) == name:
            return call
    return None


def class_attribute(values: Values, owner: Instance | LocalClass, name: str, node: cst.CSTNode) -> Value:
    """Return an attribute of an object or class of the script."""
    if isinstance(owner, Instance) and owner.call is not None:
        given = _constructor_argument(values, owner.node, owner.call, name)
        if given is not None:
            return values.agree([values.of(given), *_set_by_name(values, owner, name)], node)
    assigned = values.attribute_targets.get(name, ())
    found = [values.of(value) for place, value in assigned if _is_self(values, place.value, owner.node)]
    found += _set_by_name(values, owner, name)
    if found:
        return values.agree(found, node)
    default = class_default(owner.node, name)
    if default is not None:
        return _unwrapped(values, default)
    for base in owner.node.bases:
        parent = values.of(base.value)
        if isinstance(parent, Known) and isinstance(parent.value, LocalClass):
            return class_attribute(values, parent.value, name, node)
    method = next((f for f in methods(owner.node) if f.name.value == name), None)
    if method is not None:
        marks = [values.script.code(d.decorator).split(".")[-1] for d in method.decorators]
        if "property" in marks or "cached_property" in marks:
            return values.agree([values.of(r.value) for r in returns(values, method) if r.value is not None], node)
        return Known(LocalFunction(method), node)
    return Missing(f"nothing in class `{owner.node.name.value}` sets `{name}`", node)


def _set_by_name(values: Values, owner: Instance | LocalClass, name: str) -> list[Value]:
    """Return what `setattr(holder, name, value)` may put under a name."""
    found: list[Value] = []
    for call in values.calls_by_name.get("setattr", ()):
        if len(call.args) != 3 or not _is_self(values, call.args[0].value, owner.node):
            continue
        wanted = values.of(call.args[1].value)
        if isinstance(wanted, Missing):
            found.append(Missing(f"`{values.short(call)}` may set `{name}`", call))
        elif wanted.value == name:
            found.append(values.of(call.args[2].value))
    return found


def methods(owner: cst.ClassDef) -> list[cst.FunctionDef]:
    """Return the methods of a class, in order."""
    return [s for s in owner.body.body if isinstance(s, cst.FunctionDef)]


def fields(owner: cst.ClassDef) -> Iterator[tuple[str, cst.BaseExpression | None]]:
    """Yield the names that a class body assigns, with their values."""
    for line in owner.body.body:
        for small in line.body if isinstance(line, cst.SimpleStatementLine) else ():
            if isinstance(small, cst.AnnAssign) and isinstance(small.target, cst.Name):
                yield small.target.value, small.value
            elif isinstance(small, cst.Assign):
                for target in small.targets:
                    if isinstance(target.target, cst.Name):
                        yield target.target.value, small.value


def class_default(owner: cst.ClassDef, name: str) -> cst.BaseExpression | None:
    """Return the value a class body gives to a name."""
    return next((value for field, value in fields(owner) if field == name and value is not None), None)


def _constructor_argument(values: Values, owner: cst.ClassDef, call: cst.Call, name: str) -> cst.CSTNode | None:
    if any(method.name.value == "__init__" for method in methods(owner)):
        return None
    for arg in call.args:
        if arg.keyword is not None and arg.keyword.value == name:
            return arg.value
    positional = [arg.value for arg in call.args if arg.keyword is None and not arg.star]
    names = [field for field, _ in fields(owner)]
    position = names.index(name) if name in names else len(positional)
    return positional[position] if position < len(positional) else None


def _is_self(values: Values, node: cst.BaseExpression, owner: cst.ClassDef) -> bool:
    if not isinstance(node, cst.Name):
        return False
    value = values.of(node)
    return isinstance(value, Known) and isinstance(value.value, Instance) and value.value.node is owner
