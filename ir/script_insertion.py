"""Statements put into a script: after one, before one, into a one-line suite, between semicolons."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Sequence
from dataclasses import dataclass

import libcst as cst

from diffopt.ir.script_lines import MARK, Edit, Lines
from diffopt.ir.script_placement import Place, Unit
from diffopt.ir.script_text import Script

LONGEST = 120


@dataclass(frozen=True)
class NewLine:
    """A statement to put in, and the pass that asks for it; no origin, no comment."""

    code: str
    origin: str = ""
    marked: bool = True


def insert(script: Script, lines: Lines, place: Place, new: Sequence[NewLine]) -> list[Edit]:
    """Return the edits that put statements where a pipeline is complete; none where an earlier patch has put them."""
    if place.ours and [_bare(script.code(unit)) for unit in place.ours] == [_bare(line.code) for line in new]:
        return []
    if place.hoist is None:
        return _after(script, lines, place.unit, new)
    start, end = outer_range(script, place.hoist)
    if isinstance(place.unit, cst.Return) and place.unit.value is place.hoist:
        begin = script.start(place.unit)
        renamed = Edit(begin, begin + len("return"), f"{place.pipe} =")
        back = NewLine(f"return {place.pipe}", marked=False)
        return [renamed, *_after(script, lines, place.unit, [*new, back])]
    text = script.text[start:end]
    named = NewLine(f"{place.pipe} = {text if _stands_alone(text) else f'({text})'}", marked=False)
    return [*_before(script, lines, place.unit, [named, *new]), Edit(start, end, place.pipe)]


def _stands_alone(expression: str) -> bool:
    """Say whether an expression needs no brackets round it to go over several lines."""
    try:
        ast.parse(expression)
    except SyntaxError:
        return False
    return True


def outer_range(script: Script, node: cst.BaseExpression) -> tuple[int, int]:
    """Return the range of an expression with the brackets round it."""
    start, end = script.start(node), script.end(node)
    for left in reversed(node.lpar):
        start = script.text.rindex(
            "(",
            0,
            start - len(left.whitespace_after.value if isinstance(left.whitespace_after, cst.SimpleWhitespace) else ""),
        )
    for _ in node.rpar:
        end = _closing(script.text, end)
    return start, end


def _closing(text: str, offset: int) -> int:
    """Return the offset behind the next closing bracket, past blanks and comments."""
    while text[offset] != ")":
        offset = text.index("\n", offset) if text[offset] == "#" else offset + 1
    return offset + 1


def _render(lines: Sequence[NewLine], indent: str, deeper: str) -> list[str]:
    """Write statements as lines, each with its comment."""
    return [text for line in lines for text in _rendered(line, indent, deeper)]


def _rendered(line: NewLine, indent: str, deeper: str) -> list[str]:
    mark = (f"  {MARK}: {line.origin}" if line.origin else f"  {MARK}") if line.marked else ""
    whole = f"{indent}{line.code}{mark}"
    if len(whole) <= LONGEST or not line.marked or not line.code.endswith(")"):
        return [whole]
    opening, arguments = _last_call(line.code)
    inner = f"{indent}{deeper}{', '.join(arguments)}"
    body = [inner] if len(inner) <= LONGEST else [f"{indent}{deeper}{argument}," for argument in arguments]
    return [f"{indent}{line.code[:opening]}{mark}", *body, f"{indent})"]


def _last_call(code: str) -> tuple[int, list[str]]:
    """Return the offset behind the bracket that the last one closes, and what stands between its commas."""
    tokens = [t for t in tokenize.generate_tokens(io.StringIO(code).readline) if t.type == tokenize.OP]
    opened: list[int] = []
    cuts: dict[int, list[int]] = {}
    start = 0
    for token in tokens:
        if token.string in "([{":
            opened.append(token.end[1])
            cuts[token.end[1]] = []
        elif token.string in ")]}":
            start = opened.pop()
        elif token.string == "," and opened:
            cuts[opened[-1]].append(token.start[1])
    ends = [*cuts[start], len(code) - 1]
    starts = [start, *(cut + 1 for cut in cuts[start])]
    return start, [code[i:j].strip() for i, j in zip(starts, ends, strict=True)]


def _bare(code: str) -> str:
    """Return code without its layout: blanks, comments of ours, commas before a closing bracket."""
    return re.sub(r"\s+|,(?=\s*\))", "", re.sub(rf"{MARK}.*", "", code))


def _after(script: Script, lines: Lines, unit: Unit, new: Sequence[NewLine]) -> list[Edit]:
    holder = script.parents[unit]
    begin = lines.statement_start(script.start(unit))
    indent = lines.indent(begin)
    edits: list[Edit] = []
    if isinstance(holder, cst.SimpleStatementSuite):
        indent += _deeper(script, unit)
        edits.append(_open_suite(script, lines, holder, indent, []))
    if isinstance(holder, cst.SimpleStatementLine | cst.SimpleStatementSuite) and holder.body[-1] is not unit:
        follower = holder.body[list(holder.body).index(unit) + 1]  # type: ignore[arg-type]
        edits.append(
            _between(
                script,
                lines,
                script.end(unit),
                script.start(follower),
                _render(new, indent, _deeper(script, unit)),
                indent,
            )
        )
        return edits
    end = max(script.end(n) for n in _small(unit)) if isinstance(unit, cst.BaseCompoundStatement) else script.end(unit)
    return [*edits, lines.after(end, _render(new, indent, _deeper(script, unit)))]


def _before(script: Script, lines: Lines, unit: Unit, new: Sequence[NewLine]) -> list[Edit]:
    holder = script.parents[unit]
    begin = script.start(unit)
    if isinstance(unit, cst.FunctionDef | cst.ClassDef) and unit.decorators:
        begin = min(begin, script.start(unit.decorators[0]))
    indent = lines.indent(lines.statement_start(begin))
    if isinstance(holder, cst.SimpleStatementSuite):
        indent += _deeper(script, unit)
        if holder.body[0] is unit:
            return [_open_suite(script, lines, holder, indent, _render(new, indent, _deeper(script, unit)))]
        opened = [_open_suite(script, lines, holder, indent, [])]
    else:
        opened = []
    if isinstance(holder, cst.SimpleStatementLine | cst.SimpleStatementSuite) and holder.body[0] is not unit:
        previous = holder.body[list(holder.body).index(unit) - 1]  # type: ignore[arg-type]
        return [
            *opened,
            _between(script, lines, script.end(previous), begin, _render(new, indent, _deeper(script, unit)), indent),
        ]
    newline = lines.newline(begin)
    text = "".join(f"{line}{newline}" for line in _render(new, indent, _deeper(script, unit)))
    return [Edit(begin, begin, f"{text[len(indent) :]}{indent}")]


def _between(script: Script, lines: Lines, end: int, start: int, rendered: Sequence[str], indent: str) -> Edit:
    newline = lines.newline(end)
    return Edit(end, start, newline + "".join(f"{line}{newline}" for line in rendered) + indent)


def _open_suite(
    script: Script, lines: Lines, suite: cst.SimpleStatementSuite, indent: str, rendered: Sequence[str]
) -> Edit:
    """Move the statements behind a colon to lines of their own."""
    first = script.start(suite.body[0])
    colon = len(script.text[:first].rstrip(" \t\f\\\r\n"))
    newline = lines.newline(first)
    return Edit(colon, first, newline + "".join(f"{line}{newline}" for line in rendered) + indent)


def _deeper(script: Script, node: cst.CSTNode) -> str:
    """Return one step of indentation as a node's file has it."""
    return script.part(node).module.default_indent


def _small(unit: cst.CSTNode) -> list[cst.BaseSmallStatement]:
    stack, found = [unit], []
    while stack:
        node = stack.pop()
        if isinstance(node, cst.BaseSmallStatement):
            found.append(node)
        elif not isinstance(node, cst.BaseExpression):
            stack.extend(node.children)
    return found
