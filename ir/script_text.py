"""A script as text and tree: reading, parsing, and where each node stands."""

from __future__ import annotations

import ast
import gc
import re
import warnings
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, cast

import libcst as cst

from diffopt.ir.description import Span
from diffopt.ir.errors import DiffoptError
from diffopt.ir.script_places import Places, walk
from diffopt.ir.script_scopes import Scope, Scopes

MAX_BYTES = 4_000_000
MAX_DEPTH = 120
"""Levels of nesting; the parser of libcst 1.9 overflows its stack on a few thousand instead of raising."""

MAX_NODES = 100_000
"""Nodes of Python's own tree in one file: some 10,000 lines, which take a few seconds."""

MAX_WORK = 80_000
"""Steps of evaluation that one script may take."""

Node = TypeVar("Node", bound=cst.CSTNode)


@dataclass(frozen=True, eq=False)
class Part:
    """One file of a script's text.

    Args:
        path: of the file, as messages show it.
        base: offset of its first character in the whole text.
        name: the module's dotted name where other files import it; empty for the script itself.
        package: dotted name of the package it stands in, which relative imports start from.
        label: of a line of this part, as (file, line) for a message; notebooks count lines within cells.
    """

    path: str
    base: int
    text: str
    module: cst.Module
    scopes: Scopes
    line_starts: tuple[int, ...]
    name: str = ""
    package: str = ""
    label: Callable[[int], tuple[str, int]] | None = None


@dataclass(eq=False)
class Work:
    """What was spent on evaluating a script; branches upon branches would take for ever."""

    steps: int = 0

    def spend(self, where: str, steps: int) -> None:
        """Count steps.

        Raises:
            DiffoptError: there were too many.
        """
        self.steps += steps
        if self.steps > MAX_WORK:
            raise DiffoptError(
                "too involved to be read: its values depend on too many others",
                where=where,
                hint="lift a shorter script that builds and calls the pipeline alone",
            )


@dataclass(frozen=True, eq=False)
class Script:
    """A parsed script, with the files of its project that it imports, and what is asked of it again and again.

    Args:
        parts: imported files first, the script itself last; offsets count through all of them.
        nodes: every node in the order of the source.
        parents: the node that holds a node.
        index: nodes by class.
        bound: what each name that was looked up stands for.
    """

    parts: tuple[Part, ...]
    nodes: tuple[cst.CSTNode, ...]
    parents: Mapping[cst.CSTNode, cst.CSTNode]
    ranges: Mapping[cst.CSTNode, tuple[int, int]] = field(repr=False)
    index: Mapping[type, list[cst.CSTNode]] = field(repr=False)
    work: Work = field(default_factory=Work, repr=False)
    bound: dict[cst.CSTNode, Any] = field(default_factory=dict, repr=False)

    @property
    def path(self) -> str:
        """The script itself as the user wrote it; relative paths in it are resolved from there."""
        return self.parts[-1].path

    @cached_property
    def text(self) -> str:
        """The text of all parts, a line end between them, without byte order marks, line ends as they are."""
        return "\n".join(part.text for part in self.parts)

    @property
    def module(self) -> cst.Module:
        """The tree of the script itself."""
        return self.parts[-1].module

    def spend(self, steps: int = 1) -> None:
        """Count steps of evaluation; too many are refused."""
        self.work.spend(self.path, steps)

    def all(self, kind: type[Node]) -> list[Node]:
        """Return all nodes of one class, in the order of the source."""
        return cast("list[Node]", self.index.get(kind, []))

    def ancestors(self, node: cst.CSTNode) -> Iterator[cst.CSTNode]:
        """Yield the nodes around a node, innermost first."""
        while (parent := self.parents.get(node)) is not None:
            yield parent
            node = parent

    def enclosing(self, node: cst.CSTNode, *kinds: type[Node]) -> Node | None:
        """Return the innermost node of these classes around a node."""
        return next((a for a in self.ancestors(node) if isinstance(a, kinds)), None)

    def part(self, node: cst.CSTNode) -> Part:
        """Return the file a node stands in."""
        if len(self.parts) == 1:
            return self.parts[0]
        start = self.ranges[node][0]
        return next(part for part in reversed(self.parts) if part.base <= start)

    @cached_property
    def modules(self) -> Mapping[str, Part]:
        """The imported files by their dotted names."""
        return {part.name: part for part in self.parts if part.name}

    def scope(self, node: cst.CSTNode) -> Scope:
        """Return the scope in which a node's names are looked up."""
        return self.part(node).scopes.of(node)

    def start(self, node: cst.CSTNode) -> int:
        """Return the offset of a node's first character; brackets round an expression are not part of it."""
        return self.ranges[node][0]

    def end(self, node: cst.CSTNode) -> int:
        """Return the offset behind a node's last character."""
        return self.ranges[node][1]

    def code(self, node: cst.CSTNode) -> str:
        """Return a node's own text."""
        start, end = self.ranges[node]
        return self.text[start:end]

    def line(self, node: cst.CSTNode) -> int:
        """Return the line a node starts on, counted from 1 in its own file or cell."""
        return self._place(node, self.start(node))[1]

    def lines(self, nodes: Iterable[cst.CSTNode]) -> str:
        """Return the lines that nodes start on, for a message; of a notebook with their cells."""
        places = sorted({self._place(node, self.start(node))[:2] for node in nodes})
        if any(":cell " in file for file, _ in places):
            return " and ".join(f"{file.rpartition(':')[2]} line {line}" for file, line in places)
        return f"lines {', '.join(map(str, sorted({line for _, line in places})))}"

    def label(self, node: cst.CSTNode) -> str:
        """Return what tells a line from all others: its number, in a notebook `cell3:5`."""
        file, line, _ = self._place(node, self.start(node))
        cell = file.rpartition(":cell ")[2] if ":cell " in file else ""
        return f"cell{cell}:{line}" if cell else str(line)

    def where(self, node: cst.CSTNode) -> str:
        """Return `file:line` for a message."""
        file, line, _ = self._place(node, self.start(node))
        return f"{file}:{line}"

    def span(self, node: cst.CSTNode) -> Span:
        """Return the range of a node as the module carries it."""
        file, line, column = self._place(node, self.start(node))
        _, end_line, end_column = self._place(node, self.end(node))
        return Span(file, line, column, end_line, end_column)

    def _place(self, node: cst.CSTNode, offset: int) -> tuple[str, int, int]:
        part = self.part(node)
        line = bisect_right(part.line_starts, offset - part.base)
        column = offset - part.base - part.line_starts[line - 1]
        file, line = part.label(line) if part.label is not None else (part.path, line)
        return file, line, column


def read_script(path: str | Path) -> str:
    """Read a script's text; line ends stay as they are, a byte order mark is dropped.

    Raises:
        DiffoptError: there is no such file, or it is not Python text in UTF-8.
    """
    where = str(path)
    try:
        # A pipe or a device would be waited for, or be read for ever.
        if Path(path).exists() and not Path(path).is_file() and not Path(path).is_dir():
            raise DiffoptError("not a regular file", where=where, hint="give a .py file")
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


def read_whole(path: str | Path) -> str:
    """Read a file that `read_script` has read, with its byte order mark."""
    with Path(path).open(encoding="utf-8", newline="") as file:
        return file.read()


def parse_script(text: str, path: str | Path) -> Script:
    """Parse a script's text.

    Raises:
        DiffoptError: the text is not Python, is too large, or is nested too deeply.
    """
    return join([parse_part(text, str(path))])


def parse_part(text: str, where: str) -> tuple[Part, Places]:
    """Parse the text of one file.

    Raises:
        DiffoptError: the text is not Python, is too large, or is nested too deeply.
    """
    if len(text) > MAX_BYTES:
        raise DiffoptError(f"{len(text):,} characters are too much for a script", where=where)
    _check_syntax(text, where)
    collecting = gc.isenabled()
    gc.disable()  # a hundred thousand nodes, none of them garbage: the collector would take a third of the time
    try:
        module = cst.parse_module(text)
        places = walk(module)
        index = _index(places.nodes)
        scopes = Scopes(module, places.parents, index)
    except cst.ParserSyntaxError as error:
        raise DiffoptError("syntax libcst does not know", where=f"{where}:{error.raw_line}") from None
    except RecursionError:
        raise DiffoptError("nested too deeply to be read", where=where) from None
    finally:
        if collecting:
            gc.enable()
    if not _same_places(places.code, text):
        feed = re.search(r"^\f", text, re.MULTILINE)
        if feed is not None:
            # libcst 1.9 drops it
            line = text.count("\n", 0, feed.start()) + 1
            raise DiffoptError("a form feed begins this line", where=f"{where}:{line}", hint="delete that character")
        raise DiffoptError("cannot be reproduced byte for byte", where=where, hint="report this file to diffopt")
    lengths = (match.end() for match in re.finditer(r"\r\n?|\n", text))
    return Part(where, 0, text, module, scopes, (0, *lengths)), places


def join(found: Sequence[tuple[Part, Places]]) -> Script:
    """Make one script of its files, the script itself last."""
    parts: list[Part] = []
    nodes: list[cst.CSTNode] = []
    parents: dict[cst.CSTNode, cst.CSTNode] = {}
    ranges: dict[cst.CSTNode, tuple[int, int]] = {}
    base = 0
    for part, places in found:
        offsets = [base + offset for offset in places.offsets] if base else places.offsets
        parts.append(replace(part, base=base))
        nodes += places.nodes
        parents.update(places.parents)
        ranges.update((node, (offsets[start], offsets[end])) for node, (start, end) in places.ranges.items())
        base += len(part.text) + 1
    return Script(tuple(parts), tuple(nodes), parents, ranges, _index(nodes))


def _index(nodes: Iterable[cst.CSTNode]) -> dict[type, list[cst.CSTNode]]:
    index: dict[type, list[cst.CSTNode]] = {}
    for node in nodes:
        index.setdefault(type(node), []).append(node)
    return index


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
    count = 0
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        count += len(level)
        if count > MAX_NODES:
            lines = text.count("\n")
            raise DiffoptError(f"{lines:,} lines of code are too much for a script", where=where)
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
