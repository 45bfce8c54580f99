"""Keep a folder of engines within a size: those that nobody has loaded for longest go first."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from pathlib import Path

LIMIT = "limit.json"
MANIFEST = "engine.json"


def set_limit(engines: Path, size: int | None) -> None:
    """Bound the engines of a folder, for all processes that use it; None takes the bound away.

    size: bytes of all engines together; the one built last stays, however large it is.
    """
    if size is None:
        (engines / LIMIT).unlink(missing_ok=True)
        return
    engines.mkdir(parents=True, exist_ok=True)
    draft = engines / f".{LIMIT}.draft"
    draft.write_text(json.dumps({"bytes": size}))
    draft.replace(engines / LIMIT)


def used(folder: Path) -> None:
    """Note that an engine was loaded now; engines of a folder that cannot be written keep the time they were made."""
    with contextlib.suppress(OSError):
        os.utime(folder / MANIFEST)


def trim(engines: Path, *, keep: str) -> list[str]:
    """Remove engines until the folder is within its bound, if it has one; return the names of those removed.

    keep: name of an engine that stays. A process that has a removed engine loaded keeps what it has.
    """
    try:
        limit = int(json.loads((engines / LIMIT).read_text())["bytes"])
    except (OSError, ValueError, KeyError, TypeError):
        return []
    sizes = {folder.name: _bytes(folder) for folder in engines.iterdir() if (folder / MANIFEST).exists()}
    total, removed = sum(sizes.values()), list[str]()
    for name in sorted(sizes, key=lambda name: _last_used(engines / name)):
        if total <= limit:
            break
        if name == keep:
            continue
        remove(engines / name)
        total -= sizes[name]
        removed.append(name)
    return removed


def remove(folder: Path) -> None:
    """Take an engine's folder away in one step, so that nobody sees half of it."""
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
    with contextlib.suppress(OSError):
        os.rename(folder, aside / folder.name)
    shutil.rmtree(aside, ignore_errors=True)


def _bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total


def _last_used(folder: Path) -> float:
    try:
        return (folder / MANIFEST).stat().st_mtime
    except OSError:
        return 0.0
