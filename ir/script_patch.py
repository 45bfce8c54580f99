"""Unified patches as `git apply` takes them."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from diffopt.ir.script_lines import Edit, apply_edits
from diffopt.ir.script_text import read_whole


def project_patch(edits: Mapping[str, tuple[Edit, ...]], script: str | Path) -> str:
    """Return the patch of a project's files; it applies in the folder that holds the script and all of them.

    Args:
        edits: of each file, by its path.
    """
    root = patch_root(edits, script)
    parts = []
    for path in sorted(edits, key=lambda name: Path(name).absolute()):
        before = read_whole(path)
        name = Path(path).absolute().relative_to(root).as_posix()
        parts.append(unified_patch(name, before, apply_edits(before, edits[path])))
    return "".join(parts)


def patch_root(edits: Iterable[str], script: str | Path) -> Path:
    """Return the folder in which a project's patch applies."""
    return Path(os.path.commonpath([Path(path).absolute().parent for path in (script, *edits)]))


def unified_patch(name: str, before: str, after: str) -> str:
    """Return the patch from one text to the other; empty when they are equal.

    Args:
        name: path of the file in the patch, with forward slashes.
    """
    if before == after:
        return ""
    old, new = _quoted(f"a/{name}"), _quoted(f"b/{name}")
    lines = difflib.unified_diff(_lines(before), _lines(after), old, new, lineterm="\n")
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def _lines(text: str) -> list[str]:
    """Split at line feeds alone, as git does; `str.splitlines` knows nine more."""
    lines = text.split("\n")
    return [f"{line}\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])


def _quoted(name: str) -> str:
    """Write a path as git does: in C quotes where it has other than plain characters."""
    data = name.encode("utf-8", "surrogateescape")
    if all(32 <= byte < 127 and byte not in b'"\\' for byte in data):
        return f"{name}\t" if " " in name else name
    escaped = (chr(b) if 32 <= b < 127 and b not in b'"\\' else f"\\{b:03o}" for b in data)
    return f'"{"".join(escaped)}"'
