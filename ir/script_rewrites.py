"""Arguments of a script's calls, changed where the user wrote them or added where nothing was written."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import libcst as cst

from diffopt.ir.pipeline_classes import pipeline_class as known_class
from diffopt.ir.script_arguments import Argument, argument
from diffopt.ir.script_choice import Choice
from diffopt.ir.script_insertion import outer_range
from diffopt.ir.script_kinds import CommandLine, Known
from diffopt.ir.script_lines import Edit, Lines
from diffopt.ir.script_pipelines import Pipelines
from diffopt.ir.script_scopes import Assigned
from diffopt.ir.script_text import Script
from diffopt.ir.script_threads import takes_keywords

WRITTEN = (cst.Integer, cst.Float, cst.UnaryOperation, cst.BinaryOperation)
"""Expressions that write a number out."""


@dataclass(frozen=True)
class Wanted:
    """An argument as the module has it: keyword, value, the value as code, and the pass that changed it."""

    keyword: str
    value: object
    code: str
    origin: str


def rewrite(
    pipelines: Pipelines, lines: Lines, choice: Choice, wanted: Sequence[Wanted], pipeline_class: str
) -> tuple[list[Edit], bool]:
    """Return the edits that give every call the wanted arguments, and whether all calls could be given them."""
    edits: dict[tuple[int, int, str], Edit] = {}
    complete = bool(choice.calls)
    for item in wanted:
        found = {call: argument(pipelines.values, call, item.keyword, pipeline_class) for call in choice.calls}
        readers = {given.value for given in found.values() if isinstance(given, Argument)}
        for call, given in found.items():
            made = None
            if isinstance(given, Argument):
                made = _changed(pipelines, lines, given.value, item, readers)
            elif given is None:
                made = _added(pipelines, lines, call, item, pipeline_class)
            complete = complete and made is not None
            for edit in made or ():
                edits.setdefault((edit.start, edit.end, edit.text), edit)
    return list(edits.values()), complete


def _changed(
    pipelines: Pipelines, lines: Lines, node: cst.BaseExpression, item: Wanted, readers: Collection[cst.CSTNode]
) -> list[Edit]:
    value = pipelines.values.of(node)
    if isinstance(value, Known) and type(value.value) in (int, float, str) and value.value == item.value:
        return []
    start, end = outer_range(pipelines.script, _origin(pipelines, node, readers))
    comment = lines.comment(end, item.origin)
    return [Edit(start, end, item.code, item.origin), *([comment] if comment else [])]


def _origin(pipelines: Pipelines, node: cst.BaseExpression, readers: Collection[cst.CSTNode]) -> cst.BaseExpression:
    """Return the number behind a name or an option when the calls alone read it; else the expression in the call."""
    value = pipelines.values.of(node)
    if not isinstance(value, Known) or not isinstance(value.origin, WRITTEN):
        return node
    script, written = pipelines.script, value.origin
    holder = script.parents[written]
    is_default = isinstance(holder, cst.Arg) and holder.keyword is not None and holder.keyword.value == "default"
    if isinstance(node, cst.Name):
        found = script.scope(node).find(node.value)
        alone = len(found) == 1 and all(read in readers for read in _reads(script, found[0]))
        source = found[0].node if found else node
        assigned = script.parents.get(source) if isinstance(source, cst.Name) else source
        assigned = script.parents.get(assigned) if isinstance(assigned, cst.AssignTarget) else assigned
        return written if alone and (holder is assigned or is_default) else node
    if isinstance(node, cst.Attribute) and is_default:
        owner = pipelines.values.of(node.value)
        same = [a for a in script.all(cst.Attribute) if a.attr.value == node.attr.value]
        on_command_line = isinstance(owner, Known) and isinstance(owner.value, CommandLine)
        return written if on_command_line and all(a in readers for a in same) else node
    return node


def _reads(script: Script, assigned: Assigned) -> Iterator[cst.Name]:
    """Yield where a name that is bound once is read."""
    for name in script.all(cst.Name):
        if (
            name.value == assigned.name
            and name is not assigned.node
            and assigned in script.scope(name).find(name.value)
        ):
            yield name


def _added(pipelines: Pipelines, lines: Lines, call: cst.Call, item: Wanted, pipeline_class: str) -> list[Edit] | None:
    """Return the edits that add an argument; `None` where the call can take none."""
    script = pipelines.script
    owner = known_class(pipeline_class)
    if owner is not None and owner.call.get(item.keyword) == item.value:
        return []
    if not takes_keywords(call):
        return None
    if len(call.args) == 1 and isinstance(call.args[0].value, cst.GeneratorExp) and not call.args[0].value.lpar:
        return None
    code = f"{item.keyword}={item.code}"
    close = script.end(call) - 1
    if not call.args:
        opening = script.text.rindex("(", 0, close)
        comment = lines.comment(opening, item.origin)
        return [Edit(opening + 1, opening + 1, code, item.origin), *([comment] if comment else [])]
    last = call.args[-1]
    end = outer_range(script, last.value)[1]
    has_comma = isinstance(last.comma, cst.Comma)
    comma = script.text.index(",", end) + 1 if has_comma else end
    if lines.row(script.start(last)) > lines.row(script.start(call.func)) and lines.row(close) > lines.row(end):
        indent = lines.indent(script.start(last))
        line = f"{indent}{code},"
        edits = [] if has_comma else [Edit(end, end, ",", item.origin)]
        mark = f"{line}  # diffopt: {item.origin}" if item.origin else f"{line}  # diffopt"
        return [*edits, lines.after(comma, [mark], item.origin)]
    comment = lines.comment(comma, item.origin)
    text = f" {code}," if has_comma else f", {code}"
    return [Edit(comma, comma, text, item.origin), *([comment] if comment else [])]


def comments_last(edits: Iterable[Edit]) -> list[Edit]:
    """Return edits in the order in which insertions at one place belong; a comment ends its line."""
    return sorted(edits, key=lambda e: (e.start, e.end, not e.text.lstrip(" ").startswith("#")))
