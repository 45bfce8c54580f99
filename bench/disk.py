"""Writing files so that a full disk is one clear line that names the path."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diffopt.ir.errors import DiffoptError

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def is_full(error: OSError) -> bool:
    """Say whether an error means that a file could not grow: no space, over quota, over the file size limit."""
    return error.errno in _NO_SPACE


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failure to write `path` into a DiffoptError that names it."""
    try:
        yield
    except OSError as error:
        hint = "free some space or choose another folder" if is_full(error) else "choose a folder you may write to"
        raise DiffoptError(f"cannot write: {error.strerror or error}", where=str(path), hint=hint) from error


def make_folder(path: Path) -> Path:
    """Create a folder and its parents."""
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: beside its place first, then moved there."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    with writing(path):
        try:
            unfinished.write_bytes(data)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    write_bytes(path, text.encode())


def disk_is_full(folder: Path, *, probe_bytes: int = 1 << 20) -> bool:
    """Try whether a megabyte can still be written to a folder."""
    probe = folder / f".space-{os.getpid()}"
    try:
        probe.write_bytes(bytes(probe_bytes))
    except OSError as error:
        return is_full(error)
    finally:
        probe.unlink(missing_ok=True)
    return False
