"""Engine folders: one per key, written whole or not at all, checked before use."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from diffopt.backends.base import JSON, BackendError, EngineKey

Loaded = TypeVar("Loaded")
MANIFEST = "engine.json"
FORMAT = 1


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
        return load(folder)
    if build is None:
        raise BackendError(f"engine {folder.name}: {damage}", "build it again from the pipeline it was made of")
    with _scratch(engines, key.hash) as scratch:
        facts = dict(build(scratch))
        _write_manifest(scratch, key, facts)
        _publish(scratch, folder)
    damage = check_engine(folder)
    if damage is not None:
        raise BackendError(
            f"engine {folder.name} could not be written: {damage}", f"is {engines} writable, and not full?"
        )
    return load(folder)


def store_engine(folder: Path, key: EngineKey, build: Callable[[Path], Mapping[str, JSON]], *, replace: bool) -> bool:
    """Write an engine into a folder of the caller's naming, whole or not at all; return whether it had to be built.

    A sound engine of the same key is kept. Raises BackendError where another one stands there and may not be replaced.
    """
    if check_engine(folder) is None:
        if read_manifest(folder)["key"] == json.loads(json.dumps(key.to_json())):
            return False
        if not replace:
            raise BackendError(f"{folder} holds another engine", "give another folder, or --force")
    with _scratch(folder.parent, folder.name) as scratch:
        facts = dict(build(scratch))
        _write_manifest(scratch, key, facts)
        if folder.exists():
            _set_aside(folder)
        _publish(scratch, folder)
    damage = check_engine(folder)
    if damage is not None:
        raise BackendError(f"{folder} could not be written: {damage}", "is there room on the disk?")
    return True


def check_engine(folder: Path) -> str | None:
    """Return None if the folder holds a sound engine, or else what is wrong with it."""
    try:
        manifest = read_manifest(folder)
        listed = manifest["files"]
        if manifest["format"] != FORMAT:
            return f"written in format {manifest['format']}, this version reads {FORMAT}"
    except FileNotFoundError:
        return "there is no engine"
    except (OSError, ValueError, KeyError, TypeError):
        return f"{MANIFEST} cannot be read"
    for name, expected in listed.items():
        try:
            actual = _sha256(folder / name)
        except OSError:
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
    """Move the finished folder into place; where another builder was faster, keep theirs."""
    for _ in range(3):
        try:
            os.rename(scratch, folder)
            return
        except OSError:
            if check_engine(folder) is None:
                return
            _set_aside(folder)


def _set_aside(folder: Path) -> None:
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.damaged.", dir=folder.parent))
    with contextlib.suppress(OSError):
        os.rename(folder, aside / folder.name)
    shutil.rmtree(aside, ignore_errors=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
