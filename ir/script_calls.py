"""Calls in a script that can be computed without running it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePath
from typing import TYPE_CHECKING

import libcst as cst

from diffopt.ir.script_builtins import FUNCTIONS, METHODS
from diffopt.ir.script_kinds import CommandLine, Instance, Known, LocalClass, LocalFunction, Missing, Symbol, Value
from diffopt.ir.script_parameters import returned

if TYPE_CHECKING:
    from diffopt.ir.script_values import Values

METHODS_OF = (str, PurePath, dict)


def call_value(values: Values, node: cst.Call) -> Value:
    """Return what a call gives: an object of the script's, a path, a default, a converted constant."""
    if isinstance(node.func, cst.Attribute) and node.func.attr.value in ("parse_args", "parse_known_args"):
        both = node.func.attr.value == "parse_known_args"
        return Known((CommandLine(), []) if both else CommandLine(), node)
    function = values.of(node.func)
    if isinstance(function, Known):
        match function.value:
            case LocalClass(node=owner):
                return Known(Instance(owner, node), node)
            case LocalFunction(node=definition):
                return returned(values, definition, node)
            case Symbol(name="tyro.cli" | "simple_parsing.parse") if node.args:
                made = values.of(node.args[0].value)
                if isinstance(made, Known) and isinstance(made.value, LocalClass):
                    return Known(Instance(made.value.node), node)
            case Symbol(name="os.environ.get" | "os.getenv"):
                if len(node.args) == 2:
                    return values.of(node.args[1].value)
                return Missing(f"`{values.short(node)}` has no default", node)
    if any(arg.star for arg in node.args):
        return values.runtime(node)
    positional = [arg.value for arg in node.args if arg.keyword is None]
    named = [(arg.keyword.value, arg.value) for arg in node.args if arg.keyword is not None]
    apply: Callable[..., object] | None = None
    if isinstance(function, Known) and isinstance(function.value, Symbol):
        apply = FUNCTIONS.get(function.value.name)
    elif isinstance(node.func, cst.Attribute):
        holder = values.of(node.func.value)
        if isinstance(holder, Missing):
            return holder
        apply = METHODS.get(
            (next((t for t in METHODS_OF if isinstance(holder.value, t)), object), node.func.attr.value)
        )
        positional = [node.func.value, *positional]
    if apply is None:
        return values.runtime(node)
    count = len(positional)
    function_of_values = apply
    return values.combine(
        [*positional, *(value for _, value in named)],
        node,
        lambda v: function_of_values(*v[:count], **dict(zip((name for name, _ in named), v[count:], strict=True))),
    )
