"""A script as text and tree: reading, parsing, and where each node stands."""

from __future__ import annotations

import ast
import gc
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import libcst as cst
from libcst.metadata import CodeRange, MetadataWrapper, PositionProvider, Scope, ScopeProvider

from diffopt.ir.description import Span
from diffopt.ir.errors import DiffoptError

MAX_BYTES = 4_000_000
MAX_DEPTH = 120
"""Levels of nesting; the parser of libcst 1.9 overflows its stack on a few thousand instead of raising."""

Node = TypeVar("Node", bound=cst.CSTNode)


@dataclass(frozen=True, eq=False)
class Script:
    """A parsed script with what is asked of it again and again.

    Args:
        path: as the user wrote it; used in messages and to resolve relative paths.
        text: the file's text without a byte order mark, line ends as they are.
        nodes: every node in the order of the source.
        parents: the node that holds a node.
    """

    path: str
    text: str
    module: cst.Module
    nodes: tuple[cst.CSTNode, ...]
    parents: Mapping[cst.CSTNode, cst.CSTNode]
    positions: Mapping[cst.CSTNode, CodeRange]
    scopes: Mapping[cst.CSTNode, Scope | None]
    line_starts: tuple[int, ...]
    index: Mapping[type, list[cst.CSTNode]] = field(repr=False)

    def all(self, kind: type[Node]) -> list[Node]:
        """Return all nodes of one class, in the order of the source."""
        return [node for node in self.index.get(kind, ()) if isinstance(node, kind)]

    def ancestors(self, node: cst.CSTNode) -> Iterator[cst.CSTNode]:
        """Yield the nodes around a node, innermost first."""
        while (parent := self.parents.get(node)) is not None:
            yield parent
            node = parent

    def enclosing(self, node: cst.CSTNode, *kinds: type[Node]) -> Node | None:
        """Return the innermost node of these classes around a node."""
        return next((a for a in self.ancestors(node) if isinstance(a, kinds)), None)

    def offset(self, line: int, column: int) -> int:
        """Return the character offset of a position."""
        return self.line_starts[line - 1] + column

    def start(self, node: cst.CSTNode) -> int:
        """Return the offset of a node's first character; brackets round an expression are not part of it."""
        position = self.positions[node].start
        return self.offset(position.line, position.column)

    def end(self, node: cst.CSTNode) -> int:
        """Return the offset behind a node's last character."""
        position = self.positions[node].end
        return self.offset(position.line, position.column)

    def code(self, node: cst.CSTNode) -> str:
        """Return a node's own text."""
        return self.text[self.start(node) : self.end(node)]

    def line(self, node: cst.CSTNode) -> int:
        """Return the line a node starts on, counted from 1."""
        return int(self.positions[node].start.line)

    def where(self, node: cst.CSTNode) -> str:
        """Return `file:line` for a message."""
        return f"{self.path}:{self.line(node)}"

    def span(self, node: cst.CSTNode) -> Span:
        """Return the range of a node as the module carries it."""
        place = self.positions[node]
        return Span(self.path, place.start.line, place.start.column, place.end.line, place.end.column)


def read_script(path: str | Path) -> str:
    """Read a script's text; line ends stay as they are, a byte order mark is dropped.

    Raises:
        DiffoptError: there is no such file, or it is not Python text in UTF-8.
    """
    where = str(path)
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise DiffoptError("no such script", where=where, hint="check the path") from None
    except IsADirectoryError:
        raise DiffoptError("a directory, not a script", where=where, hint="give a .py file") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DiffoptError(f"cannot be read: {reason}", where=where) from None
    if b"\0" in data:
        raise DiffoptError("a binary file, not a Python script", where=where)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DiffoptError("not UTF-8 text", where=f"{where}:{line}", hint="save the script as UTF-8") from None


def parse_script(text: str, path: str | Path) -> Script:
    """Parse a script's text.

    Raises:
        DiffoptError: the text is not Python, is too large, or is nested too deeply.
    """
    where = str(path)
    if len(text) > MAX_BYTES:
        raise DiffoptError(f"{len(text):,} characters are too much for a script", where=where)
    _check_syntax(text, where)
    collecting = gc.isenabled()
    gc.disable()  # a hundred thousand nodes, none of them garbage: the collector would take a third of the time
    try:
        module = cst.parse_module(text)
        wrapper = MetadataWrapper(module, unsafe_skip_copy=True)
        wrapper.resolve_many([PositionProvider, ScopeProvider])
        positions, scopes = wrapper.resolve(PositionProvider), wrapper.resolve(ScopeProvider)
    except cst.ParserSyntaxError as error:
        raise DiffoptError("syntax libcst does not know", where=f"{where}:{error.raw_line}") from None
    except RecursionError:
        raise DiffoptError("nested too deeply to be read", where=where) from None
    finally:
        if collecting:
            gc.enable()
    if not _same_places(module.code, text):
        raise DiffoptError("cannot be reproduced byte for byte", where=where, hint="report this file to diffopt")
    nodes, parents = _flatten(module)
    index: dict[type, list[cst.CSTNode]] = {}
    for node in nodes:
        index.setdefault(type(node), []).append(node)
    lengths = (match.end() for match in re.finditer(r"\r\n?|\n", text))
    return Script(
        path=where,
        text=text,
        module=module,
        nodes=tuple(nodes),
        parents=parents,
        positions=positions,
        scopes=scopes,
        line_starts=(0, *lengths),
        index=index,
    )


def _check_syntax(text: str, where: str) -> None:
    """Parse with the interpreter first: it names the line well and never overflows the stack."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except SyntaxError as error:
        line = f"{where}:{error.lineno}" if error.lineno else where
        raise DiffoptError(f"not valid Python: {error.msg}", where=line) from None
    except (RecursionError, MemoryError):
        raise DiffoptError("nested too deeply to be read", where=where) from None
    except ValueError as error:
        raise DiffoptError(f"cannot be parsed: {error}", where=where) from None
    level: list[ast.AST] = [tree]
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        if not level:
            return
    line = next((f":{node.lineno}" for node in level if isinstance(node, ast.expr | ast.stmt)), "")
    raise DiffoptError("nested too deeply to be read", where=f"{where}{line}")


def _same_places(code: str, text: str) -> bool:
    """Say whether positions in what libcst writes hold in the text; 1.9 loses blanks behind the last statement."""
    return _without_tail(code) == _without_tail(text)


def _without_tail(text: str) -> str:
    """Return a text up to its last line that is not blank or a comment."""
    lines = text.rstrip().split("\n")
    while lines and (not lines[-1].strip() or lines[-1].lstrip().startswith("#")):
        lines.pop()
    return "\n".join(lines).rstrip()


def _flatten(module: cst.Module) -> tuple[list[cst.CSTNode], dict[cst.CSTNode, cst.CSTNode]]:
    nodes: list[cst.CSTNode] = []
    parents: dict[cst.CSTNode, cst.CSTNode] = {}
    stack: list[cst.CSTNode] = [module]
    while stack:
        node = stack.pop()
        nodes.append(node)
        children = node.children
        for child in children:
            parents[child] = node
        stack.extend(reversed(children))
    return nodes, parents
