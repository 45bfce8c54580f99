"""Wrap a command in bubblewrap: a file system of what it needs and nothing else, all namespaces apart."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path


def wrapped(command: Sequence[str], paths: Sequence[str]) -> list[str]:
    """Return the command as `bwrap` runs it.

    Args:
        paths: folders that the command reads beside the interpreter's own.
    """
    system = [place for place in ("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache") if os.path.exists(place)]
    places = dict.fromkeys(
        [*system, sys.base_prefix, sys.prefix, str(Path(sys.executable).resolve().parent.parent), *paths]
    )
    binds = [word for place in places for word in ("--ro-bind", place, place)]
    return [
        "bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL", *binds,
        "--dev", "/dev", "--chdir", "/", "--", *command,
    ]  # fmt: skip
