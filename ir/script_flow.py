"""What flows from one pipeline of a script into another."""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from diffopt.ir.script_names import bindings, signature
from diffopt.ir.script_parameters import callers
from diffopt.ir.script_pipelines import Pipelines

DEEPEST = 12


def origins(
    pipelines: Pipelines, node: cst.CSTNode, depth: int = 0, seen: set[cst.CSTNode] | None = None
) -> Iterator[cst.Call]:
    """Yield the pipeline calls whose output an expression is made of, nearest first."""
    seen = set() if seen is None else seen
    if depth > DEEPEST or node in seen:
        return
    seen.add(node)
    pipelines.script.spend()
    match node:
        case cst.Call():
            if node in pipelines.calls or _is_method_of(pipelines, node):
                yield node
                return
            if isinstance(node.func, cst.Attribute):
                yield from origins(pipelines, node.func.value, depth + 1, seen)
            for arg in node.args:
                yield from origins(pipelines, arg.value, depth + 1, seen)
        case cst.Attribute() | cst.Subscript() | cst.Arg():
            yield from origins(pipelines, node.value, depth + 1, seen)
        case cst.List() | cst.Tuple():
            for element in node.elements:
                yield from origins(pipelines, element.value, depth + 1, seen)
        case cst.ListComp() | cst.GeneratorExp():
            yield from origins(pipelines, node.elt, depth + 1, seen)
            yield from origins(pipelines, node.for_in.iter, depth + 1, seen)
        case cst.IfExp():
            yield from origins(pipelines, node.body, depth + 1, seen)
            yield from origins(pipelines, node.orelse, depth + 1, seen)
        case cst.Name():
            for binding in bindings(pipelines.script, node):
                if isinstance(binding.node, cst.Param):
                    yield from _passed(pipelines, binding.node, depth, seen)
                elif isinstance(binding.node, cst.BaseExpression) and binding.node is not node:
                    yield from origins(pipelines, binding.node, depth + 1, seen)


def _passed(pipelines: Pipelines, node: cst.Param, depth: int, seen: set[cst.CSTNode]) -> Iterator[cst.Call]:
    function = pipelines.script.enclosing(node, cst.FunctionDef)
    if function is None:
        return
    names = [p.name.value for p in signature(function)]
    names = names[1:] if names[:1] in (["self"], ["cls"]) else names
    for call in callers(pipelines.values, function):
        for index, arg in enumerate(call.args):
            given = arg.keyword.value if arg.keyword else names[index] if index < len(names) else ""
            if given == node.name.value:
                yield from origins(pipelines, arg.value, depth + 1, seen)


def _is_method_of(pipelines: Pipelines, call: cst.Call) -> bool:
    """Say whether a call asks a pipeline for something other than a picture, as `pipe.encode_prompt(...)` does."""
    return (
        isinstance(call.func, cst.Attribute)
        and call not in pipelines.sites
        and not pipelines.of(call)
        and bool(pipelines.of(call.func.value))
    )
