"""One measurement at a time on a device, whichever process of this machine asks."""

from __future__ import annotations

import fcntl
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def device_lock(device: str, folder: Path) -> Iterator[None]:
    """Hold a device; wait while another process does. The system frees it when the process dies, however it dies.

    Args:
        device: such as ``cpu`` or ``cuda:0``.
        folder: the same for all processes that share the device, such as the system's folder for temporary files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"diffopt-{re.sub(r'[^A-Za-z0-9]+', '-', device)}.lock"
    with path.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
