"""What was measured so far: one line of JSON a measurement, appended, so that a run that was killed goes on."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffopt.bench.disk import make_folder, writing
from diffopt.ir.errors import DiffoptError

VERSION = 1


class MeasurementStore:
    """Records by key; equal programs on equal terms have one key and are measured once.

    Several may write: each takes up what others have written before it adds its own. A line that a kill has cut short is
    left out on the next reading, and written over.
    """

    def __init__(self, path: Path) -> None:
        make_folder(path.parent)
        self._path = path
        self._records: dict[str, dict[str, Any]] = {}
        self._whole = 0
        self._read()

    def get(self, key: str) -> dict[str, Any] | None:
        """Return a record, or None."""
        return self._records.get(key)

    def add(self, key: str, record: Mapping[str, Any]) -> None:
        """Write a record to the disk before returning.

        Raises:
            DiffoptError: it cannot be written.
        """
        line = json.dumps({"version": VERSION, "key": key, "record": record}, separators=(",", ":")).encode() + b"\n"
        with writing(self._path), self._path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._read()
            file.truncate(self._whole)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._whole += len(line)
        self._records[key] = dict(record)

    def __len__(self) -> int:
        return len(self._records)

    def _read(self) -> None:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._whole)
            for number, line in enumerate(file, len(self._records) + 1):
                if not line.endswith(b"\n"):
                    return
                try:
                    entry = json.loads(line)
                    version, key, record = entry["version"], entry["key"], {**entry["record"]}
                except (ValueError, KeyError, TypeError, RecursionError):
                    where = f"{self._path}:{number}"
                    raise DiffoptError("no measurement of DiffBench", where, "give another --store") from None
                if version != VERSION:
                    raise DiffoptError(f"a store of version {version}", str(self._path), "give another --store")
                self._records[str(key)] = record
                self._whole += len(line)
