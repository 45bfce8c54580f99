"""Engine folders: one per key, written whole or not at all, checked before use."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from diffopt.backends.base import JSON, BackendError, EngineKey
from diffopt.backends.engine_cache import MANIFEST, remove, trim, used

Loaded = TypeVar("Loaded")
FORMAT = 1
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def open_engine(
    engines: Path,
    key: EngineKey,
    build: Callable[[Path], Mapping[str, JSON]] | None,
    load: Callable[[Path], Loaded],
) -> Loaded:
    """Return the loaded engine of this key, building it first where it is missing or damaged.

    engines: folder that holds one folder per key; shared by any number of processes.
    build: writes the engine into the folder it is given and returns facts for the manifest; None if it cannot be.
    Raises BackendError if there is no sound engine and none can be built.
    """
    folder = engines / key.hash
    damage = check_engine(folder)
    if damage is None:
        used(folder)
        return load(folder)
    if build is None:
        raise BackendError(f"engine {folder.name}: {damage}", "build it again from the pipeline it was made of")
    with _building(engines, key.hash):
        if check_engine(folder) is not None:  # or else another process has built it meanwhile
            _build(folder, key, build)
            trim(engines, keep=folder.name)
    return load(folder)


def _build(folder: Path, key: EngineKey, build: Callable[[Path], Mapping[str, JSON]]) -> None:
    """Write an engine beside its place, then move it there. Raises BackendError where there is no room for it."""
    try:
        with _scratch(folder.parent, folder.name) as scratch:
            facts = dict(build(scratch))
            _write_manifest(scratch, key, facts)
            _publish(scratch, folder)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise BackendError(f"engine {folder.name} could not be written: {error.strerror}", _room(folder)) from error
    damage = check_engine(folder)
    if damage is not None:
        raise BackendError(f"engine {folder.name} could not be written: {damage}", _room(folder))


def _room(folder: Path) -> str:
    return f"make room in {folder.parent}, or give another folder"


@contextlib.contextmanager
def _building(engines: Path, name: str) -> Iterator[None]:
    """Let one process at a time build this engine, and clear away what a killed one has left of it.

    The lock ends with its holder, however that ends.
    """
    engines.mkdir(parents=True, exist_ok=True)
    with locked(engines / f".{name}.lock"):
        for left in engines.glob(f".{name}.*"):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
        yield


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file, and take it away at the end: who waited on one that is gone asks for the new one."""
    while True:
        with path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_at(file.fileno(), path):
                continue
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.fstat(descriptor).st_ino == path.stat().st_ino
    except FileNotFoundError:
        return False


def store_engine(folder: Path, key: EngineKey, build: Callable[[Path], Mapping[str, JSON]], *, replace: bool) -> bool:
    """Write an engine into a folder of the caller's naming, whole or not at all; return whether it had to be built.

    A sound engine of the same key is kept. Raises BackendError where another one stands there and may not be replaced.
    """
    if check_engine(folder) is None:
        if read_manifest(folder)["key"] == json.loads(json.dumps(key.to_json())):
            return False
        if not replace:
            raise BackendError(f"{folder} holds another engine", "give another folder, or --force")
    elif _is_foreign(folder):
        raise BackendError(f"{folder} is there and is no engine", "give another folder")
    with _building(folder.parent, folder.name):
        _build(folder, key, build)
    return True


def _is_foreign(folder: Path) -> bool:
    """Say whether something stands there that no engine was ever written to, and that must not be replaced."""
    if folder.is_symlink() or not folder.is_dir():
        return os.path.lexists(folder)
    return not (folder / MANIFEST).is_file() and any(folder.iterdir())


def add_facts(folder: Path, facts: Mapping[str, JSON]) -> None:
    """Take files that were added to an engine, and facts about them, into its manifest."""
    manifest = read_manifest(folder)
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != MANIFEST)
    manifest["files"] = {str(path.relative_to(folder)): _sha256(path) for path in files}
    manifest["facts"] = {**manifest["facts"], **facts}
    draft = folder / f".{MANIFEST}.draft"
    draft.write_text(json.dumps(manifest, indent=1, sort_keys=True))
    draft.replace(folder / MANIFEST)


def check_engine(folder: Path) -> str | None:
    """Return None if the folder holds a sound engine, or else what is wrong with it."""
    try:
        manifest = read_manifest(folder)
        listed = dict(manifest["files"])
        if manifest["format"] != FORMAT:
            return f"written in format {manifest['format']}, this version reads {FORMAT}"
        if not listed or not all(isinstance(manifest[name], dict) for name in ("files", "key", "facts")):
            return f"{MANIFEST} does not say what the engine is made of"
    except FileNotFoundError:
        return "there is no engine"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return f"{MANIFEST} cannot be read"
    for name, expected in listed.items():
        if Path(name).is_absolute() or ".." in Path(name).parts:
            return f"{MANIFEST} names a file outside the folder"
        try:
            actual = _sha256(folder / name)
        except (OSError, ValueError):  # ValueError: no name a file can have
            return f"{name} is missing"
        if actual != expected:
            return f"{name} is damaged"
    return None


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return an engine's manifest: `key` (see `EngineKey`), `facts` the builder noted, `files` with their hashes."""
    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    return manifest


@contextlib.contextmanager
def _scratch(engines: Path, name: str) -> Iterator[Path]:
    engines.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=engines))
    try:
        scratch.chmod(0o755)
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write_manifest(folder: Path, key: EngineKey, facts: Mapping[str, JSON]) -> None:
    files = {str(path.relative_to(folder)): _sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}
    manifest = {"format": FORMAT, "key": key.to_json(), "files": files, "facts": facts}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True))


def _publish(scratch: Path, folder: Path) -> None:
    """Move the finished folder into place, in place of what stands there."""
    for _ in range(3):
        try:
            os.rename(scratch, folder)
            return
        except OSError:
            remove(folder)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
