"""Arguments of a call in a script, however they are written: by keyword, by position, or through `**kwargs`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import libcst as cst

from diffopt.ir.pipeline_classes import pipeline_class as known_class
from diffopt.ir.script_kinds import Missing
from diffopt.ir.script_names import bindings, signature
from diffopt.ir.script_parameters import callers, meant, returns
from diffopt.ir.script_threads import before
from diffopt.ir.script_values import Values


@dataclass(frozen=True, eq=False)
class Argument:
    """An argument as it is written: its expression, and whether the call itself holds it."""

    value: cst.BaseExpression
    direct: bool


def argument(values: Values, call: cst.Call, name: str, pipeline_class: str = "") -> Argument | Missing | None:
    """Return what a call gives for a parameter; `None` where it gives nothing."""
    inner = values.partial_of(call)
    found = _argument(values, call, name, pipeline_class, before(call))
    if found is None and inner is not None:
        bound = _argument(values, inner, name, pipeline_class, 1)
        return replace(bound, direct=False) if isinstance(bound, Argument) else bound
    return found


def _argument(values: Values, call: cst.Call, name: str, pipeline_class: str, skip: int) -> Argument | Missing | None:
    for arg in call.args:
        if arg.keyword is not None and arg.keyword.value == name:
            return Argument(arg.value, direct=True)
    positional = [arg for arg in call.args if arg.keyword is None and arg.star != "**"][skip:]
    if positional and pipeline_class:
        owner = known_class(pipeline_class)
        order = list(owner.call) if owner is not None else []
        position = order.index(name) if name in order else len(positional)
        starred = next((i for i, arg in enumerate(positional) if arg.star), len(positional))
        if position < starred:
            return Argument(positional[position].value, direct=True)
        if starred < len(positional):
            return Missing(f"`{values.short(positional[starred])}` hides it", positional[starred])
    for arg in reversed(call.args):
        if arg.star == "**":
            found = entry(values, arg.value, name)
            if found is not None:
                return Missing(found.reason, arg) if isinstance(found, Missing) else Argument(found, direct=False)
    return None


def entry(values: Values, node: cst.BaseExpression, key: str, depth: int = 0) -> cst.BaseExpression | Missing | None:
    """Return what a dictionary of the script holds under a key; `None` where it holds nothing."""
    if depth > 12:
        return values.runtime(node)
    match node:
        case cst.Dict():
            return _literal_entry(values, node, key, depth)
        case cst.Call(func=cst.Name(value="dict")) if not any(arg.star == "*" for arg in node.args):
            named = next((a.value for a in node.args if a.keyword is not None and a.keyword.value == key), None)
            if named is not None:
                return named
            return _first(entry(values, a.value, key, depth + 1) for a in reversed(node.args) if a.keyword is None)
        case cst.Call() if (returned := _returned(values, node)) is not None:
            return entry(values, returned, key, depth + 1)
        case cst.BinaryOperation(operator=cst.BitOr()):
            return _first(entry(values, side, key, depth + 1) for side in (node.right, node.left))
        case cst.Name():
            return _first((_written(values, node, key), _made(values, node, key, depth)))
        case cst.Attribute():
            assigned = [v for _, v in values.attribute_targets.get(node.attr.value, ())]
            if len(assigned) == 1:
                return entry(values, assigned[0], key, depth + 1)
    return values.runtime(node)


def _returned(values: Values, call: cst.Call) -> cst.BaseExpression | None:
    """Return the dictionary that a function of the script gives back."""
    definitions = [b.node for b in meant(values, call.func) if isinstance(b.node, cst.FunctionDef)]
    found = [r.value for r in returns(values, definitions[0]) if r.value is not None] if len(definitions) == 1 else []
    return found[0] if len(found) == 1 else None


def _first(
    found: Iterator[cst.BaseExpression | Missing | None] | tuple[cst.BaseExpression | Missing | None, ...],
) -> cst.BaseExpression | Missing | None:
    return next((value for value in found if value is not None), None)


def _literal_entry(values: Values, node: cst.Dict, key: str, depth: int) -> cst.BaseExpression | Missing | None:
    for element in reversed(node.elements):
        if isinstance(element, cst.DictElement):
            name = values.of(element.key)
            if isinstance(name, Missing):
                return name
            if name.value == key:
                return element.value
            continue
        found = entry(values, element.value, key, depth + 1)
        if found is not None:
            return found
    return None


def _made(values: Values, node: cst.Name, key: str, depth: int) -> cst.BaseExpression | Missing | None:
    made = bindings(values.script, node)
    if len(made) != 1 or made[0].steps or made[0].each:
        return Missing(f"`{node.value}` is made in several places", node)
    source = made[0].node
    if isinstance(source, cst.Param):
        return _collected(values, source, key, depth)
    return entry(values, source, key, depth + 1) if isinstance(source, cst.BaseExpression) else values.runtime(node)


def _collected(values: Values, node: cst.Param, key: str, depth: int) -> cst.BaseExpression | Missing | None:
    """Look for a key among what the script's own calls hand to `**kwargs`; outside callers hand nothing."""
    function = values.script.enclosing(node, cst.FunctionDef)
    if function is None or function.params.star_kwarg is not node:
        return Missing(f"parameter `{node.name.value}` is given when the script runs", node)
    named = {parameter.name.value for parameter in signature(function)}
    found: list[cst.BaseExpression | Missing] = []
    for call in callers(values, function):
        for arg in call.args:
            if arg.keyword is not None and arg.keyword.value == key and key not in named:
                found.append(arg.value)
            elif arg.star == "**":
                inner = entry(values, arg.value, key, depth + 1)
                found += [inner] if inner is not None else []
    if len(found) > 1:
        return Missing(f"`{function.name.value}` is called with several values for it", node)
    return found[0] if found else None


def _written(values: Values, node: cst.Name, key: str) -> cst.BaseExpression | Missing | None:
    """Return what `kwargs["key"] = value` or `kwargs.update(key=value)` last gave before the call."""
    script = values.script
    made = {binding.node for binding in bindings(script, node)}
    found: cst.BaseExpression | Missing | None = None
    for write in values.writes.get(node.value, ()):
        if script.start(write) > script.start(node) or not any(b.node in made for b in bindings(script, write)):
            continue
        parent = script.parents[write]
        holder = script.parents[parent]
        if isinstance(parent, cst.Subscript) and isinstance(parent.slice[0].slice, cst.Index):
            index = values.of(parent.slice[0].slice.value)
            if isinstance(index, Missing):
                return index
            if index.value != key:
                continue
            statement = script.parents.get(holder)
            certain = script.enclosing(write, cst.IndentedBlock) in (None, *script.ancestors(node))
            found = statement.value if isinstance(statement, cst.Assign) and certain else values.runtime(write)
        elif isinstance(parent, cst.Attribute) and isinstance(holder, cst.Call):
            named = next((a.value for a in holder.args if a.keyword is not None and a.keyword.value == key), None)
            if named is not None:
                found = named
            elif any(a.keyword is None for a in holder.args):
                inner = [entry(values, a.value, key) for a in holder.args if a.keyword is None]
                found = next((value for value in inner if value is not None), found)
    return found
