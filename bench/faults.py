"""What goes wrong and is not a candidate's: the baseline that does not run, the disk that is full."""

from __future__ import annotations

from pathlib import Path

from diffopt.bench.disk import disk_is_full
from diffopt.bench.outcome import Failed
from diffopt.ir.errors import DiffoptError


def baseline_error(name: str, failed: Failed) -> DiffoptError:
    """Return the error that says that the user's own pipeline does not run here."""
    lines = failed.log.strip().splitlines()
    hint = f"it fails without any change of ours: {lines[-1].strip()[:200]}" if lines else ""
    return DiffoptError(f"the pipeline does not run here ({failed.kind}: {failed.message})", where=name, hint=hint)


def check_disk(*folders: Path) -> None:
    """Check that folders can still be written to.

    Raises:
        DiffoptError: the disk is full.
    """
    for folder in folders:
        if disk_is_full(folder):
            raise DiffoptError("the disk is full", where=str(folder), hint="free some space, then resume")
