"""Lines of a script: which can take a comment at their end, and where the statement they belong to starts."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffopt.ir.script_text import Script

MARK = "# diffopt"
"""How every comment of ours starts."""

PASS = r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*(?: \([^()]*\))?"
OURS = re.compile(rf"{MARK}: {PASS}(?:, {PASS})*")
"""A whole comment of ours: passes, and what each one bought. Statements with it may be ours, if they have our form."""

NEWLINE = re.compile(r"\r\n?|\n")


@dataclass(frozen=True, order=True)
class Edit:
    """Replace a range of a text.

    Args:
        start, end: offsets in characters, the end exclusive; equal for an insertion.
        text: what goes there.
        origin: the pass that asks for it.
    """

    start: int
    end: int
    text: str
    origin: str = ""


class Lines:
    """Where lines and statements of a script start and end; offsets count through all of its files."""

    def __init__(self, files: Sequence[tuple[int, FileLines]]) -> None:
        self.files = files

    @classmethod
    def of(cls, script: Script) -> Lines:
        """Read the files of a script."""
        return cls([(part.base, FileLines.of(part.text)) for part in script.parts])

    def row(self, offset: int) -> int:
        """Return the line of an offset in its file, counted from 1."""
        base, lines = self._at(offset)
        return lines.row(offset - base)

    def line_end(self, offset: int) -> int:
        """Return the offset of the line end (or the end of the file) at or behind an offset."""
        base, lines = self._at(offset)
        return base + lines.line_end(offset - base)

    def newline(self, offset: int) -> str:
        """Return the line end in use near an offset."""
        base, lines = self._at(offset)
        return lines.newline(offset - base)

    def indent(self, offset: int) -> str:
        """Return the white space at the start of the line of an offset."""
        base, lines = self._at(offset)
        return lines.indent(offset - base)

    def statement_start(self, offset: int) -> int:
        """Return the offset at which the first line of the statement at an offset starts."""
        base, lines = self._at(offset)
        return base + lines.statement_start(offset - base)

    def after(self, offset: int, new: Iterable[str], origin: str = "") -> Edit:
        """Insert whole lines behind the line of an offset."""
        base, lines = self._at(offset)
        return moved(lines.after(offset - base, new, origin), base)

    def comment(self, offset: int, origin: str) -> Edit | None:
        """Say at a line which pass changed it: at its end, or above its statement where the end can take no comment."""
        base, lines = self._at(offset)
        edit = lines.comment(offset - base, origin)
        return moved(edit, base) if edit is not None else None

    def _at(self, offset: int) -> tuple[int, FileLines]:
        return next(file for file in reversed(self.files) if file[0] <= offset)


def moved(edit: Edit, by: int) -> Edit:
    """Return an edit at other offsets."""
    return Edit(edit.start + by, edit.end + by, edit.text, edit.origin)


@dataclass(frozen=True)
class FileLines:
    """Where lines and statements of one file start and end."""

    text: str
    starts: Sequence[int]
    open_ends: frozenset[int]
    statement_rows: Sequence[int]
    comments: dict[int, str]

    @classmethod
    def of(cls, text: str) -> FileLines:
        """Read a text that is valid Python."""
        starts = [0, *(match.end() for match in NEWLINE.finditer(text))]
        ends: set[int] = set()
        comments: dict[int, str] = {}
        first_rows = list(range(len(starts) + 1))
        first: int | None = None
        source = io.StringIO(NEWLINE.sub("\n", text))
        skipped = (tokenize.NL, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
        try:
            for token in tokenize.generate_tokens(source.readline):
                row = token.start[0]
                if token.type in (tokenize.NL, tokenize.NEWLINE):
                    ends.add(row)
                if token.type == tokenize.COMMENT:
                    comments[row] = token.string
                if first is None and token.type not in skipped:
                    first = row
                if token.type == tokenize.NEWLINE and first is not None:
                    first_rows[first : row + 1] = [first] * (row + 1 - first)
                    first = None
        except (tokenize.TokenError, SyntaxError):
            ends.clear()
        return cls(text, starts, frozenset(ends), first_rows, comments)

    def row(self, offset: int) -> int:
        """Return the line of an offset, counted from 1."""
        low, high = 0, len(self.starts)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.starts[middle] <= offset else (low, middle)
        return low + 1

    def line_end(self, offset: int) -> int:
        """Return the offset of the line end (or the end of the text) at or behind an offset."""
        match = NEWLINE.search(self.text, offset)
        return match.start() if match else len(self.text)

    def newline(self, offset: int) -> str:
        """Return the line end in use near an offset."""
        match = NEWLINE.search(self.text, offset) or NEWLINE.search(self.text)
        return match.group() if match else "\n"

    def indent(self, offset: int) -> str:
        """Return the white space at the start of the line of an offset."""
        start = self.starts[self.row(offset) - 1]
        end = start
        while end < len(self.text) and self.text[end] in " \t\f":
            end += 1
        return self.text[start:end]

    def statement_start(self, offset: int) -> int:
        """Return the offset at which the first line of the statement at an offset starts."""
        return self.starts[self.statement_rows[self.row(offset)] - 1]

    def after(self, offset: int, lines: Iterable[str], origin: str = "") -> Edit:
        """Insert whole lines behind the line of an offset."""
        at = self.line_end(offset)
        newline = self.newline(offset)
        body = newline.join(lines)
        if at == len(self.text):
            return Edit(at, at, newline + body, origin)
        behind = NEWLINE.match(self.text, at)
        at = behind.end() if behind else at
        return Edit(at, at, body + newline, origin)

    def comment(self, offset: int, origin: str) -> Edit | None:
        """Say at a line which pass changed it: at its end, or above its statement where the end can take no comment."""
        row = self.row(offset)
        words = f"{MARK}: {origin}" if origin else MARK
        if row in self.open_ends:
            if words in self.comments.get(row, ""):
                return None
            at = self.line_end(self.starts[row - 1])
            return Edit(at, at, f"  {words}", origin)
        at = self.statement_start(offset)
        if words in self.comments.get(self.row(at) - 1, ""):
            return None
        return Edit(at, at, f"{self.indent(at)}{words}{self.newline(at)}", origin)


def apply_edits(text: str, edits: Iterable[Edit]) -> str:
    """Return the text with the edits made; insertions at one place keep their order.

    Raises:
        ValueError: two edits overlap.
    """
    parts: list[str] = []
    position = 0
    for edit in sorted(edits, key=lambda e: (e.start, e.end)):
        if edit.start < position:
            raise ValueError(f"edits overlap at offset {edit.start}")
        parts += [text[position : edit.start], edit.text]
        position = edit.end
    return "".join([*parts, text[position:]])
