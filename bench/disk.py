"""Writing files so that a full disk is one clear line that names the path."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from diffopt.ir.errors import DiffoptError

OWNER = ".owner"
"""A file in a scratch folder that its owner holds locked; the kernel lets go of it however the owner ends."""

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


def clear(path: Path) -> None:
    """Remove what stands in a place: a file, a folder with all in it, or a link, which is not followed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_new(path: Path, data: bytes) -> None:
    """Write a new file in the place of what stands there.

    Measured programs write into their folders too, and could have left a link there that leads out of what they may touch.
    """
    clear(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o666), "wb") as file:
        file.write(data)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: beside its place first, then moved there."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    with writing(path):
        try:
            write_new(unfinished, data)
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
        write_new(probe, bytes(probe_bytes))
    except OSError as error:
        return is_full(error)
    finally:
        probe.unlink(missing_ok=True)
    return False


class DiskWatch:
    """Watches what a process writes: into its folder, and, where the disk is nearly full, anywhere.

    Asking for the free space costs a microsecond; the folder is looked through only once that has shrunk by the limit.
    """

    def __init__(self, folder: Path, limit: int | None, *, floor_bytes: int = 256 << 20) -> None:
        self._folder, self._limit, self._floor = folder, limit, floor_bytes
        self._free = free_bytes(folder)

    def fault(self) -> str | None:
        """Say what is wrong, or None."""
        free = free_bytes(self._folder)
        if free < self._floor < self._free:
            return f"filled the disk: {free >> 20} MiB are left"
        if self._limit is None or self._free - free < self._limit:
            return None
        used = folder_bytes(self._folder, enough=self._limit)
        if used < self._limit:  # somebody else wrote; look again after as much once more
            self._free = free
            return None
        return f"wrote {used >> 20} MiB, the limit is {self._limit >> 20} MiB"


def folder_bytes(folder: Path, *, enough: int, most_files: int = 200_000) -> int:
    """Return the bytes that the files of a folder occupy, counting on only until there are enough."""
    total = 0
    for seen, (root, _, names) in enumerate(os.walk(folder)):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(root, name)).st_blocks * 512
        if total >= enough or seen + len(names) > most_files:
            break
    return total


def empty_folder(folder: Path, keep: frozenset[str] = frozenset()) -> None:
    """Remove all of a folder but the files named; what cannot be removed stays."""
    with suppress(OSError):
        for entry in list(os.scandir(folder)):
            if entry.name in keep:
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                with suppress(OSError):
                    os.unlink(entry.path)


@contextmanager
def scratch(prefix: str, parent: Path | None = None) -> Iterator[Path]:
    """Make a folder for a while; those of the same prefix whose owners were killed are removed first.

    Args:
        prefix: of its name; parent: where it is made, the system's temporary folder if None.
    """
    place = Path(tempfile.gettempdir()) if parent is None else parent
    for left in place.glob(f"{prefix}*"):
        if _abandoned(left):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent) as made, open(Path(made) / f"{OWNER}.new", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.rename(lock.name, Path(made) / OWNER)  # locked before anybody can find it
        yield Path(made)


def _abandoned(folder: Path) -> bool:
    try:
        with open(folder / OWNER, "r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held, another user's, or none: not ours to remove
        return False
    return True


def free_bytes(folder: Path) -> int:
    """Return the bytes that may still be written to the disk of a folder."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize
