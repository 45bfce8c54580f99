"""The leaderboard: a file of accepted results, one entry each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffopt.bench.disk import write_text
from diffopt.bench.suite.judging import score
from diffopt.bench.suite.results import Results, levels
from diffopt.bench.suite.running import tasks_of
from diffopt.ir.errors import DiffoptError

VERSION = 1


def add_to_board(path: Path, file: Path, results: Results, measured_again: Sequence[str]) -> None:
    """Add accepted results to a leaderboard; the same file is entered once.

    Raises:
        DiffoptError: the board cannot be read or written.
    """
    entries = read_board(path) if path.exists() else []
    entry = entry_of(results, file.name, hashlib.sha256(file.read_bytes()).hexdigest(), measured_again)
    entries = [known for known in entries if known.get("sha256") != entry["sha256"]] + [entry]
    write_text(path, json.dumps({"version": VERSION, "entries": entries}, indent=1, sort_keys=True) + "\n")


def read_board(path: Path) -> list[dict[str, Any]]:
    """Return a leaderboard's entries.

    Raises:
        DiffoptError: it is no leaderboard.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["version"] != VERSION or not all(isinstance(entry, dict) for entry in data["entries"]):
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise DiffoptError("no leaderboard of this version", str(path), "give another --board") from None
    return list(data["entries"])


def entry_of(results: Results, name: str, sha256: str, measured_again: Sequence[str]) -> dict[str, Any]:
    """Return what a leaderboard says of results: arm, machine, versions, and the counts of each level."""
    asked = tasks_of(results)
    scores = [score([t for t in asked if t.level == level], results.verdicts) for level in levels(asked)]
    return {
        "arm": results.arm,
        "suite": results.suite,
        "seed": results.seed,
        "file": name,
        "sha256": sha256,
        "machine": results.machine,
        "protocol": results.protocol,
        "measured_again": list(measured_again),
        "levels": {
            str(found.level): {
                "tasks": dict(found.statuses),
                "S_p": found.pass_rate,
                "S_a": found.achievement,
                "static": found.static,
                "strict": found.strict,
            }
            for found in scores
        },
    }
