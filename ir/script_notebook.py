"""Notebooks as scripts: the code cells in order, magics and shell lines carried through, edits put back in place."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from diffopt.ir.errors import DiffoptError
from diffopt.ir.script_lines import Edit, apply_edits
from diffopt.ir.script_places import Places
from diffopt.ir.script_text import Part, parse_part

BLANK = re.compile(r"[ \t\r\n]*")
MAGIC = re.compile(r"^([ \t]*)(?:[%!?].*|[\w.]+\?{1,2}[ \t]*)$")
ASSIGNED = re.compile(r"^([ \t]*[\w., ]+=[ \t]*)([%!].*)$")
PYTHON_CELLS = ("%%time", "%%timeit", "%%capture", "%%prun", "%%python", "%%python3", "%%memit")
"""Cell magics whose cell is still Python."""


@dataclass(frozen=True)
class Cell:
    """A code cell.

    Args:
        number: among all cells, from 1.
        source: its text.
        start, end: range of its source in the notebook's JSON.
        base: offset of its text in the script that all code cells make.
    """

    number: int
    source: str
    start: int
    end: int
    base: int


def parse_notebook(text: str, where: str) -> tuple[Part, Places]:
    """Parse the code cells of a notebook as one script; lines count within their cells.

    Raises:
        DiffoptError: it is no notebook, or its code is not Python.
    """
    cells = code_cells(text, where)
    starts: list[tuple[int, Cell]] = []
    lines = 1
    for cell in cells:
        starts.append((lines, cell))
        lines += _padded(cell.source).count("\n")

    def label(line: int) -> tuple[str, int]:
        first, cell = next(((f, c) for f, c in reversed(starts) if f <= line), (1, None))
        return (f"{where}:cell {cell.number}", line - first + 1) if cell is not None else (where, line)

    try:
        part, places = parse_part(script_text(cells), where)
    except DiffoptError as error:
        line = error.where.rpartition(":")[2]
        place = label(int(line)) if line.isdigit() else (error.where, 0)
        named = f"{place[0]}:{place[1]}" if place[1] else place[0]
        raise DiffoptError(error.message, where=named, hint=error.hint) from None
    return replace(part, label=label), places


def script_text(cells: Iterable[Cell]) -> str:
    """Return the script that code cells make: what is not Python is a comment of the same length."""
    return "".join(_padded(_python(cell.source)) for cell in cells)


def code_cells(text: str, where: str) -> list[Cell]:
    """Return the code cells of a notebook.

    Raises:
        DiffoptError: it is no notebook.
    """
    try:
        ranges = list(_sources(text))
    except (ValueError, IndexError, TypeError, AttributeError, RecursionError):
        raise DiffoptError("not a notebook: no JSON with cells", where=where, hint="save it again in Jupyter") from None
    cells: list[Cell] = []
    base = 0
    for number, start, end in ranges:
        value = json.loads(text[start:end])
        source = value if isinstance(value, str) else "".join(map(str, value)) if isinstance(value, list) else ""
        cells.append(Cell(number, source, start, end, base))
        base += len(_padded(source))
    return cells


def notebook_edits(text: str, edits: Iterable[Edit], where: str) -> tuple[Edit, ...]:
    """Return the edits of a notebook's JSON that make edits of its script; everything else stays byte for byte."""
    changes: list[Edit] = []
    waiting = sorted(edits, key=lambda e: (e.start, e.end))
    for cell in code_cells(text, where):
        last = cell.base + len(_padded(cell.source)) - 1
        own = [_within(e, cell) for e in waiting if cell.base <= e.start <= last]
        if own:
            raw = text[cell.start : cell.end]
            origins = ", ".join(dict.fromkeys(e.origin for e in own if e.origin))
            changes.append(Edit(cell.start, cell.end, _written(raw, apply_edits(cell.source, own)), origins))
    return tuple(changes)


def _within(edit: Edit, cell: Cell) -> Edit:
    """Return an edit as seen from its cell, which may lack the line end that its script has."""
    size = len(cell.source)
    start, end = edit.start - cell.base, edit.end - cell.base
    if start > size:
        return Edit(size, size, "\n" + edit.text.removesuffix("\n"), edit.origin)
    return Edit(start, min(end, size), edit.text, edit.origin)


def _written(raw: str, source: str) -> str:
    """Write a cell's source as JSON in the manner of the old one; lines that stay keep their spelling."""
    if not raw.startswith("["):
        return json.dumps(source, ensure_ascii="\\u" in raw)
    spelled: dict[str, list[str]] = {}
    position, pieces = 1, []
    while raw[position:].strip() not in ("", "]"):
        position = _blank(raw, position)
        value, end = json.JSONDecoder().raw_decode(raw, position)
        spelled.setdefault(value, []).append(raw[position:end])
        pieces.append((position, end))
        position = _blank(raw, end)
        position += raw[position] == ","
    opening = raw[1 : pieces[0][0]] if pieces else ""
    between = raw[pieces[0][1] : pieces[1][0]] if len(pieces) > 1 else f",{opening or ' '}"
    closing = raw[pieces[-1][1] :] if pieces else "]"
    lines = source.splitlines(keepends=True) if "\r" not in source else re.findall(r"[^\n]*\n|[^\n]+", source)
    plain = "\\u" in raw
    written = [spelled[line].pop(0) if spelled.get(line) else json.dumps(line, ensure_ascii=plain) for line in lines]
    return f"[{opening}{between.join(written)}{closing}"


def _sources(text: str) -> Iterator[tuple[int, int, int]]:
    """Yield number and range of the source of each code cell."""
    for key, start, _ in _members(text, _blank(text, 0)):
        if key != "cells":
            continue
        position, number = _blank(text, start + 1), 0
        while text[position] != "]":
            number += 1
            kind, source = "", (0, 0)
            end = position
            for name, first, behind in _members(text, position):
                if name == "cell_type":
                    kind = json.loads(text[first:behind])
                if name == "source":
                    source = (first, behind)
                end = behind
            if kind == "code" and source[1]:
                yield number, *source
            position = _blank(text, text.index("}", _blank(text, end)) + 1)
            position = _blank(text, position + 1) if text[position] == "," else position


def _members(text: str, position: int) -> Iterator[tuple[str, int, int]]:
    """Yield key and range of value of a JSON object's members."""
    if text[position] != "{":
        raise ValueError("no object")
    decoder = json.JSONDecoder()
    position = _blank(text, position + 1)
    while text[position] != "}":
        key, position = decoder.raw_decode(text, position)
        start = _blank(text, _blank(text, position) + 1)
        _, end = decoder.raw_decode(text, start)
        yield key, start, end
        position = _blank(text, end)
        position = _blank(text, position + 1) if text[position] == "," else position


def _blank(text: str, position: int) -> int:
    match = BLANK.match(text, position)
    return match.end() if match else position


def _padded(source: str) -> str:
    """Return a cell with a line end and an empty line behind it, so that what is put at its end stays in it."""
    return source + ("\n" if source.endswith("\n") else "\n\n")


def _python(source: str) -> str:
    """Replace magics and shell lines by comments of the same length."""
    if _is_python(source):
        return source
    lines = source.split("\n")
    first = next((line for line in lines if line.strip()), "")
    if first.startswith("%%") and first.split()[0] not in PYTHON_CELLS:
        return "\n".join(_comment(line) for line in lines)
    found: list[str] = []
    goes_on = False
    for line in lines:
        assigned = ASSIGNED.match(line)
        if goes_on:
            found.append(_comment(line))
            goes_on = line.endswith("\\")
        elif MAGIC.match(line):
            indent = len(line) - len(line.lstrip())
            found.append(line[:indent] + _statement(line[indent:]))
            goes_on = line.endswith("\\")
        elif assigned is not None:
            found.append(assigned[1] + _called(assigned[2]))
        else:
            found.append(line)
    return "\n".join(found)


def _is_python(source: str) -> bool:
    try:
        ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _comment(line: str) -> str:
    return f"#{line[1:]}" if line.strip() else line


def _statement(words: str) -> str:
    """Return a statement that does nothing, as long as a magic."""
    return f"0#{words[2:]}" if len(words) > 1 else "0"


def _called(words: str) -> str:
    """Return an expression whose value nobody knows, as long as what a magic gives."""
    return f"_()#{words[4:]}" if len(words) > 3 else "_()"[: len(words)] if len(words) == 3 else "_".ljust(len(words))
