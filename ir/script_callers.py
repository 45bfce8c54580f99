"""Who calls a function of a script, and what each gives for a parameter: directly, through stars, by other hands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import libcst as cst

from diffopt.ir.script_kinds import CommandLine, Instance, Known, LocalClass, Missing
from diffopt.ir.script_names import Binding, Function, attribute_bindings, bindings, method_class, signature

if TYPE_CHECKING:
    from diffopt.ir.script_values import Values

SUBMITTED = {"submit": 0, "to_thread": 0, "run_in_threadpool": 0, "run_sync": 0, "run_in_executor": 1, "map": 0}
"""Functions that call what they are given with what stands behind it, and at which position they are given it."""

QUEUED = ("delay", "remote", "local", "spawn")
"""Methods of a decorated function that take its own arguments: celery, ray, modal."""

CALLBACKS = ("fn", "callback", "on_click", "on_change", "on_submit", "handler", "command")
"""Keywords under which a user interface is given what it calls."""

INTERFACES = (
    *("click", "change", "release", "input", "select", "load", "upload", "tick", "then", "success", "queue", "on"),
    *("Interface", "ChatInterface", "on_click", "on_change", "add_api_route", "add_url_rule", "route"),
    *("Fire", "run", "cli", "command", "tool", "render", "clear", "edit", "blur", "stop", "add_task", "interface"),
)
"""Functions that show a function to users, who give what they like; its defaults stand for what they would give."""

LOOKED_AT = ("wraps", "update_wrapper", "signature", "print", "callable", "getsource", "isinstance", "id", "repr")
READ = ("__name__", "__doc__", "__module__", "__qualname__", "__annotations__")
NO_READS = (cst.FunctionDef, cst.AssignTarget, cst.Del, cst.Decorator, cst.AsName, cst.ImportAlias, cst.NameItem)
KEPT = ("get", "items", "keys", "values", "copy")


Handed: TypeAlias = "cst.CSTNode | Known | Missing"
"""What is handed over for a parameter: an expression, the parameter itself for its default, or a value."""


@dataclass(frozen=True, eq=False)
class Given:
    """What one caller hands over: by position, by keyword, and through stars.

    Args:
        hidden: `*values` that cannot be followed, which give positions from the end of `positional` on.
        tables: dictionaries given as `**values`, the last one first.
    """

    call: cst.CSTNode
    positional: Sequence[cst.CSTNode]
    named: dict[str, cst.BaseExpression] = field(default_factory=dict)
    tables: Sequence[cst.BaseExpression] = ()
    hidden: cst.CSTNode | None = None


def callers(values: Values, function: Function) -> Iterator[cst.Call]:
    """Yield the calls of a function of the script; of a class for its `__init__`."""
    if isinstance(function, cst.Lambda):
        return
    owner = method_class(values.script, function)
    if owner is not None and function.name.value == "__init__":
        for call in values.calls_by_name.get(owner.name.value, ()):
            if isinstance(call.func, cst.Name | cst.Attribute) and _names(values, call.func, owner):
                yield call
        return
    for call in values.calls_by_name.get(function.name.value, ()):
        if (owner is not None and isinstance(call.func, cst.Attribute)) or (
            owner is None and isinstance(call.func, cst.Name | cst.Attribute) and _names(values, call.func, function)
        ):
            yield call


def meant(values: Values, name: cst.BaseExpression) -> list[Binding]:
    """Return what a name, or a name in a module of the project, may stand for."""
    if isinstance(name, cst.Name):
        return bindings(values.script, name)
    return attribute_bindings(values.script, name) if isinstance(name, cst.Attribute) else []


def handed_over(values: Values, function: Function, node: cst.Param) -> list[Handed]:
    """Return what each caller gives for a parameter."""
    if isinstance(function, cst.Lambda):
        return []
    changed = _changing_decorator(values, function)
    if changed is not None:
        text = values.short(changed.decorator)
        return [Missing(f"decorator `{text}` may change `{node.name.value}`", changed)]
    found: list[Handed] = [
        argument_of(values, _given(values, call), function, node) for call in callers(values, function)
    ]
    for read in _reads(values, function):
        found += _read_as(values, read, function, node)
    return found


def argument_of(values: Values, given: Given, function: Function, node: cst.Param) -> Handed:
    """Return what one caller gives for a parameter."""
    name = node.name.value
    parameters = signature(function)
    if isinstance(function, cst.FunctionDef) and parameters[:1] and parameters[0].name.value in ("self", "cls"):
        parameters = parameters[1:]
    if name in given.named:
        return given.named[name]
    if node in parameters and node not in function.params.kwonly_params:
        position = parameters.index(node)
        if position < len(given.positional):
            return given.positional[position]
        if given.hidden is not None:
            return Missing(f"`{values.short(given.hidden)}` may give `{name}`", given.hidden)
    for table in given.tables:
        found = _table_entry(values, table, name)
        if isinstance(found, Missing):
            return Missing(f"`**{values.short(table)}` may give `{name}`", given.call)
        if found is not None:
            return found
    return node


def _table_entry(values: Values, table: cst.BaseExpression, name: str) -> Handed | None:
    from diffopt.ir.script_arguments import entry
    from diffopt.ir.script_parameters import command_line_option, declares

    if isinstance(table, cst.Call) and values.symbol(table.func) == "builtins.vars" and len(table.args) == 1:
        holder = values.of(table.args[0].value)
        if isinstance(holder, Known) and isinstance(holder.value, CommandLine):
            return command_line_option(values, name, table) if declares(values, name) else None
    return entry(values, table, name)


def _given(values: Values, call: cst.Call, skip: int = 0) -> Given:
    """Read the arguments of a call, without the first ones."""
    return _read(values, call, call.args[skip:])


def _read(values: Values, call: cst.CSTNode, args: Sequence[cst.Arg]) -> Given:
    positional: list[cst.CSTNode] = []
    hidden: cst.CSTNode | None = None
    for arg in args:
        if arg.keyword is not None or arg.star == "**" or hidden is not None:
            continue
        if not arg.star:
            positional.append(arg.value)
            continue
        elements = _elements(values, arg.value)
        if elements is None:
            hidden = arg
        else:
            positional += elements
    named = {arg.keyword.value: arg.value for arg in args if arg.keyword is not None}
    tables = [arg.value for arg in reversed(args) if arg.star == "**"]
    return Given(call, positional, named, tables, hidden)


def _elements(values: Values, node: cst.BaseExpression) -> list[cst.CSTNode] | None:
    """Return the items of a sequence that is written out; `None` where a run makes it."""
    if isinstance(node, cst.Tuple | cst.List):
        plain = [element.value for element in node.elements if isinstance(element, cst.Element)]
        return list(plain) if len(plain) == len(node.elements) else None
    if not isinstance(node, cst.Name) or values.writes.get(node.value):
        return None
    found = bindings(values.script, node)
    if len(found) != 1 or found[0].steps or found[0].each:
        return None
    source = found[0].node
    if isinstance(source, cst.Param):
        return _collected(values, source)
    return _elements(values, source) if isinstance(source, cst.Tuple | cst.List) else None


def _collected(values: Values, node: cst.Param) -> list[cst.CSTNode] | None:
    """Return what `*args` of a function of the script holds, where one call of the script gives it, or none does."""
    function = values.script.enclosing(node, cst.FunctionDef)
    if function is None or function.params.star_arg is not node or any(_reads(values, function)):
        return None
    calls = list(callers(values, function))
    own = [p for p in signature(function) if p not in function.params.kwonly_params]
    own = own[1:] if own[:1] and own[0].name.value in ("self", "cls") else own
    if len(calls) > 1 or any(arg.star == "*" for call in calls for arg in call.args):
        return None
    plain: list[cst.CSTNode] = [arg.value for call in calls for arg in call.args if not arg.keyword and not arg.star]
    return plain[len(own) :]


def _reads(values: Values, function: cst.FunctionDef) -> Iterator[cst.Name | cst.Attribute]:
    """Yield the places that read a function without calling it."""
    script, owner, name = values.script, method_class(values.script, function), function.name.value
    if name.startswith("__"):
        return
    for node in values.names_read.get(name, ()):
        parent = script.parents[node]
        if isinstance(parent, cst.Attribute) and parent.attr is node:
            whole: cst.Name | cst.Attribute = parent
            if not (_is_method(values, parent, owner) if owner is not None else _names(values, parent, function)):
                continue
        elif owner is not None or not _names(values, node, function):
            continue
        else:
            whole = node
        holder = script.parents[whole]
        if isinstance(holder, cst.Call) and holder.func is whole:
            continue
        if isinstance(holder, NO_READS):
            continue
        if isinstance(holder, cst.Arg) and holder.keyword is node:
            continue
        yield whole


def _is_method(values: Values, node: cst.Attribute, owner: cst.ClassDef) -> bool:
    """Say whether `holder.name` is the method of a class."""
    if isinstance(node.value, cst.Name) and node.value.value in ("self", "cls"):
        return values.script.enclosing(node, cst.ClassDef) is owner
    holder = values.of(node.value)
    return (
        isinstance(holder, Known) and isinstance(holder.value, Instance | LocalClass) and (holder.value.node is owner)
    )


def _read_as(
    values: Values, read: cst.Name | cst.Attribute, function: cst.FunctionDef, node: cst.Param
) -> list[Handed]:
    """Return what is given for a parameter where a function is handed on; nothing where that is no call."""
    script = values.script
    parent = script.parents[read]
    outer = script.parents.get(parent)
    open_: list[Handed] = [Missing(f"`{function.name.value}` is handed on, which may give `{node.name.value}`", read)]
    if isinstance(parent, cst.Attribute):
        name = parent.attr.value
        if isinstance(outer, cst.Call) and outer.func is parent and name in QUEUED:
            return [argument_of(values, _given(values, outer), function, node)]
        written = isinstance(outer, cst.AssignTarget) and not name.startswith("__")
        return [] if name in READ or written else open_
    if not isinstance(parent, cst.Arg) or not isinstance(outer, cst.Call) or parent.star:
        return open_
    name = _last_name(outer.func)
    if values.symbol(outer.func) == "functools.partial" and outer.args[0] is parent:
        return [argument_of(values, given, function, node) for given in _partial(values, outer)]
    if parent.keyword is not None and parent.keyword.value == "target":
        return [argument_of(values, _thread(values, outer), function, node)]
    if parent.keyword is not None and parent.keyword.value in CALLBACKS:
        return [node]
    if name in LOOKED_AT:
        return []
    position = SUBMITTED.get(name)
    if position is not None and not _is_event(values, outer) and parent in outer.args[position : position + 1]:
        given = _given(values, outer, position + 1)
        return _mapped(values, given, function, node) if name == "map" else [argument_of(values, given, function, node)]
    if name in INTERFACES or _is_event(values, outer):
        return [node]
    return open_


def _is_event(values: Values, call: cst.Call) -> bool:
    """Say whether `.submit(...)` is an event of a user interface and not a thread's."""
    if _last_name(call.func) != "submit":
        return False
    named = {arg.keyword.value for arg in call.args if arg.keyword is not None}
    listed = any(isinstance(arg.value, cst.List) for arg in call.args[1:2])
    return bool(named & {"fn", "inputs", "outputs"}) or (listed and len(call.args) > 2)


def _partial(values: Values, made: cst.Call) -> Iterator[Given]:
    """Yield what the calls of a `partial(function, ...)` give; where none is seen, what it gives itself."""
    calls = [c for c in values.script.all(cst.Call) if c.func is made or values.partial_of(c) is made]
    for call in calls:
        # keywords of the call go before those that were bound
        args = [*(a for a in made.args[1:] if not a.keyword), *call.args]
        taken = {a.keyword.value for a in call.args if a.keyword is not None}
        bound = [a for a in made.args[1:] if a.keyword is not None and a.keyword.value not in taken]
        yield _read(values, call, [*args, *bound])
    if not calls:
        yield _given(values, made, 1)


def _thread(values: Values, call: cst.Call) -> Given:
    """Read `Thread(target=function, args=(...), kwargs={...})`."""
    named = {arg.keyword.value: arg.value for arg in call.args if arg.keyword is not None}
    positional = _elements(values, named["args"]) if "args" in named else []
    tables = [named["kwargs"]] if "kwargs" in named else []
    return Given(call, positional or [], {}, tables, named["args"] if positional is None else None)


def _mapped(values: Values, given: Given, function: Function, node: cst.Param) -> list[Handed]:
    """Return what `map(function, first, second)` gives: the items of the sequence at a parameter's position."""
    found = argument_of(values, Given(given.call, given.positional, {}, (), given.hidden), function, node)
    if isinstance(found, Known | Missing) or found is node:
        return [found]
    items = _elements(values, found) if isinstance(found, cst.BaseExpression) else None
    return list(items) if items else [Missing(f"`{node.name.value}` takes several values in `map`", given.call)]


def _changing_decorator(values: Values, function: cst.FunctionDef) -> cst.Decorator | None:
    """Return the decorator of the script that does not hand the arguments on as they are."""
    for decorator in function.decorators:
        call = decorator.decorator
        used = call.func if isinstance(call, cst.Call) else call
        for found in meant(values, used):
            if isinstance(found.node, cst.ClassDef):
                return decorator
            if not isinstance(found.node, cst.FunctionDef):
                continue
            made: cst.FunctionDef | None = found.node
            if isinstance(call, cst.Call):
                made = _function_returned(values, found.node)
            if made is None or not _hands_on(values, made):
                return decorator
    return None


def _function_returned(values: Values, function: cst.FunctionDef) -> cst.FunctionDef | None:
    """Return the inner function that a function gives back."""
    from diffopt.ir.script_parameters import returns

    found = [b.node for r in returns(values, function) if isinstance(r.value, cst.Name) for b in meant(values, r.value)]
    return found[0] if len(found) == 1 and isinstance(found[0], cst.FunctionDef) else None


def _hands_on(values: Values, decorator: cst.FunctionDef) -> bool:
    """Say whether what a decorator makes of a function gives it the very arguments that it is given itself."""
    script = values.script
    taken = signature(decorator)[:1]
    if not taken:
        return False
    name = taken[0].name.value
    for node in values.names_read.get(name, ()):
        if decorator not in script.ancestors(node) or not any(b.node is taken[0] for b in bindings(script, node)):
            continue
        parent = script.parents[node]
        wrapper = script.enclosing(node, cst.FunctionDef)
        if isinstance(parent, cst.Call) and parent.func is node:
            if wrapper is None or wrapper is decorator or not _same_arguments(values, parent, wrapper):
                return False
        elif isinstance(parent, cst.Arg) and _last_name(getattr(script.parents[parent], "func", parent)) in LOOKED_AT:
            continue
        elif not isinstance(parent, cst.Return | cst.Attribute | cst.Param | cst.FormattedStringExpression):
            return False
    return True


def _same_arguments(values: Values, call: cst.Call, wrapper: cst.FunctionDef) -> bool:
    """Say whether a call hands on `*args, **kwargs` as they came, after the parameters that stand before them."""
    params = wrapper.params
    if params.kwonly_params or not isinstance(params.star_arg, cst.Param) or params.star_kwarg is None:
        return False
    own = [p.name.value for p in (*params.posonly_params, *params.params)]
    stars = [params.star_arg.name.value, params.star_kwarg.name.value]
    wanted = [*(("", name) for name in own), ("*", stars[0]), ("**", stars[1])]
    given = [(a.star, a.value.value) for a in call.args if isinstance(a.value, cst.Name) and a.keyword is None]
    if given != wanted or len(given) != len(call.args):
        return False
    for name in [*own, *stars]:
        for node in values.names_read.get(name, ()):
            if wrapper not in values.script.ancestors(node):
                continue
            parent = values.script.parents[node]
            read = isinstance(parent, cst.Attribute) and (parent.attr.value in KEPT or name in own)
            if not read and not isinstance(parent, cst.Arg | cst.Param | cst.FormattedStringExpression | cst.Attribute):
                return False
            if not read and isinstance(parent, cst.Attribute):
                return False
    return True


def _names(values: Values, name: cst.Name | cst.Attribute, definition: cst.CSTNode) -> bool:
    return any(binding.node is definition for binding in meant(values, name))


def _last_name(node: cst.CSTNode) -> str:
    name = node.attr if isinstance(node, cst.Attribute) else node
    return name.value if isinstance(name, cst.Name) else ""
