"""The files that the doctor reads and writes: which, and never one that somebody else has changed."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from diffopt.ir.errors import DiffoptError

MARK = b"\xef\xbb\xbf"


def scripts(paths: Sequence[str]) -> Iterator[str]:
    """Yield the scripts that are named, and those in folders that are named, each once.

    Hidden folders are left alone, and so are links that lead out of the folder.
    """
    seen = set[str]()
    for path in paths:
        for file in _inside(path) if Path(path).is_dir() else [path]:
            if (place := os.path.abspath(file)) not in seen:
                seen.add(place)
                yield file


def _inside(folder: str) -> list[str]:
    root = Path(folder).resolve()
    inside = [file for file in sorted(Path(folder).rglob("*.py")) if file.is_file()]
    inside = [f for f in inside if not any(p.startswith(".") for p in f.relative_to(folder).parts)]
    inside = [f for f in inside if f.resolve().is_relative_to(root)]
    if not inside:
        raise DiffoptError("no .py script in this folder", where=shown(folder))
    return [str(file) for file in inside]


def read(path: str) -> str:
    """Return a script's text.

    Raises:
        DiffoptError: there is no such script, or it is not Python text in UTF-8.
    """
    if path.endswith(".ipynb"):
        hint = "export it first: jupyter nbconvert --to script"
        raise DiffoptError("a notebook; the doctor reads .py scripts", where=path, hint=hint)
    from diffopt.ir.script_text import read_script

    return read_script(path)


def write(path: Path, before: str, after: str) -> None:
    """Write a file at once or not at all; its rights stay, and links to it stay links to it.

    Raises:
        DiffoptError: the file no longer holds `before`, or must not or cannot be written.
    """
    where = str(path)
    try:
        target = path.resolve()
        status = target.stat()
        if not status.st_mode & 0o222 or not os.access(target, os.W_OK):
            raise DiffoptError("read-only; it was not fixed", where=where, hint="chmod u+w it")
        mark = _unchanged(target, before, where)
        data = mark + after.encode("utf-8")
        if status.st_nlink > 1:
            # another name of the same file is to see the change: a new file in its place would part the two
            with target.open("r+b") as stream:
                stream.write(data)
                stream.truncate()
            return
        _replace(target, data, status, before, where)
    except OSError as error:
        raise DiffoptError(f"cannot be written: {error.strerror or error}", where=where) from None


def _replace(target: Path, data: bytes, status: os.stat_result, before: str, where: str) -> None:
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:80]}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        with contextlib.suppress(OSError):  # only root may give a file back to its owner
            os.chown(name, status.st_uid, status.st_gid)
        os.chmod(name, stat.S_IMODE(status.st_mode))
        _unchanged(target, before, where)
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _unchanged(target: Path, before: str, where: str) -> bytes:
    """Return a file's byte order mark; refuse a file that does not hold what was read."""
    data = target.read_bytes()
    mark = MARK if data.startswith(MARK) else b""
    if data != mark + before.encode("utf-8"):
        hint = "run the doctor again"
        raise DiffoptError("changed while it was being fixed; nothing was written", where=where, hint=hint)
    return mark


def shown(text: str) -> str:
    """Return a text for a terminal: what would start a new line or move the cursor is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def relative(path: str) -> str:
    """Return a path as a patch names it: from here if it is below, else from the root."""
    near = os.path.relpath(path)
    return shown(near if not near.startswith("..") else path.lstrip(os.sep))
