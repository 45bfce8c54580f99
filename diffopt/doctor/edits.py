"""Edits that fixes are made of; what they leave alone stays as it is written."""

from __future__ import annotations

from collections.abc import Sequence

import libcst as cst

Gone = cst.SimpleStatementLine | cst.FlattenSentinel[cst.CSTNode] | cst.RemovalSentinel


def without_statement(line: cst.SimpleStatementLine, block: cst.CSTNode | None) -> Gone:
    """Return what takes the place of a statement that goes: the comments above it, or `pass` in an empty block."""
    if isinstance(block, cst.IndentedBlock) and len(block.body) == 1:
        return line.with_changes(body=[cst.Pass()])
    if line.leading_lines:
        return cst.FlattenSentinel(list[cst.CSTNode](line.leading_lines))
    return cst.RemoveFromParent()


def with_line_before(line: cst.SimpleStatementLine, before: str, after: cst.SimpleStatementLine) -> cst.CSTNode:
    """Return a statement with another one before it, under the comments that stood above the first."""
    first = cst.parse_statement(before)
    assert isinstance(first, cst.SimpleStatementLine)
    nodes = [first.with_changes(leading_lines=line.leading_lines), after.with_changes(leading_lines=[])]
    return cst.FlattenSentinel(nodes)  # type: ignore[return-value]


def renamed_keyword(arg: cst.Arg, name: str) -> cst.Arg:
    """Return a named argument under another name."""
    return arg.with_changes(keyword=cst.Name(name))


def with_keyword(call: cst.Call, name: str, code: str) -> cst.Call:
    """Return a call with a named argument set or added."""
    value = cst.parse_expression(code)
    for index, arg in enumerate(call.args):
        if arg.keyword is not None and arg.keyword.value == name:
            args = [*call.args[:index], arg.with_changes(value=value), *call.args[index + 1 :]]
            return call.with_changes(args=args)
    new = cst.Arg(value, cst.Name(name), cst.AssignEqual(cst.SimpleWhitespace(""), cst.SimpleWhitespace("")))
    if not call.args:
        return call.with_changes(args=[new])
    last = call.args[-1]
    if isinstance(last.comma, cst.Comma):
        # one argument a line, with a comma behind the last: the new one is written the same way
        between = call.args[-2].comma if len(call.args) > 1 else call.whitespace_before_args
        space = between.whitespace_after if isinstance(between, cst.Comma) else call.whitespace_before_args
        if len(call.args) == 1:
            space = call.whitespace_before_args
        args = [*call.args[:-1], last.with_changes(comma=cst.Comma(whitespace_after=space))]
        return call.with_changes(args=[*args, new.with_changes(comma=last.comma)])
    comma = cst.Comma(whitespace_after=_between(call.args))
    # blanks behind the last argument are its own: they belong behind the new one
    moved = last.with_changes(comma=comma, whitespace_after_arg=cst.SimpleWhitespace(""))
    new = new.with_changes(whitespace_after_arg=last.whitespace_after_arg)
    return call.with_changes(args=[*call.args[:-1], moved, new])


def without_argument(call: cst.Call, gone: cst.Arg) -> cst.Call:
    """Return a call without one of its arguments."""
    args = [arg for arg in call.args if arg is not gone]
    if args and call.args[-1] is gone:
        args[-1] = args[-1].with_changes(comma=gone.comma, whitespace_after_arg=gone.whitespace_after_arg)
    return call.with_changes(args=args)


def _between(args: Sequence[cst.Arg]) -> cst.BaseParenthesizableWhitespace:
    comma = args[-2].comma if len(args) > 1 else None
    return comma.whitespace_after if isinstance(comma, cst.Comma) else cst.SimpleWhitespace(" ")
