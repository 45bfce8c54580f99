"""Results and compiler caches on disk: written after each step, so that what was done survives what comes after."""

from __future__ import annotations

import json
import lzma
import os
from pathlib import Path
from typing import Any, TypeAlias

JSON: TypeAlias = dict[str, Any]
VERSION = 1
PART = 15 << 20
"""Bytes of one file of a cache: what comes back from a machine may be limited a file."""


class Results:
    """One JSON file of results. One owner; `keep` writes it whole and swaps it in."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data: JSON = {"version": VERSION}
        if path.is_file():
            found = json.loads(path.read_text(encoding="utf-8"))
            if found.get("version") == VERSION:
                self.data = found

    def keep(self) -> None:
        """Write everything."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".part")
        temporary.write_text(json.dumps(self.data, indent=1), encoding="utf-8")
        os.replace(temporary, self.path)


def save_caches(folder: Path, name: str, most: int) -> list[str]:
    """Write what torch has compiled so far, compressed, in files of at most `PART` bytes; return their names.

    most: how many files; what does not fit is left out, and nothing is written then.
    """
    import torch

    artifacts = torch.compiler.save_cache_artifacts()
    if artifacts is None:
        return []
    packed = lzma.compress(artifacts[0], preset=0)
    parts = [packed[start : start + PART] for start in range(0, len(packed), PART)]
    if len(parts) > most:
        return [f"{name}: {len(packed)} bytes do not fit into {most} files"]
    folder.mkdir(parents=True, exist_ok=True)
    for index, part in enumerate(parts):
        (folder / f"{name}.{index}.cache").write_bytes(part)
    return [f"{name}.{index}.cache" for index in range(len(parts))]


def load_caches(folder: Path, name: str) -> int:
    """Hand torch what it compiled on a machine of the same kind; return the bytes read, 0 where there are none.

    name: of the model; caches of all labels that begin with it are read.
    """
    import torch

    total = 0
    for label in sorted({file.name.split(".")[0] for file in folder.glob(f"{name}*.cache")}):
        packed = b"".join(file.read_bytes() for file in sorted(folder.glob(f"{label}.*.cache")))
        torch.compiler.load_cache_artifacts(lzma.decompress(packed))
        total += len(packed)
    return total
