"""Leave the user, network and IPC namespaces of the machine behind: no interface is there, and no privilege of root.

Standard library only, as the sandboxed child loads it first.
"""

from __future__ import annotations

import ctypes
from typing import Final

_USER, _NETWORK, _IPC, _UTS = 0x10000000, 0x40000000, 0x08000000, 0x04000000

WANTED: Final = (_USER | _NETWORK | _IPC | _UTS, _USER | _NETWORK, _NETWORK)
"""What is tried, the most first; the last is what a container's root without user namespaces still may."""


def leave_network() -> bool:
    """Move this process, which has one thread, into an empty network; return whether that worked.

    With a user namespace of its own the process keeps no capability over anything outside of it, whoever started it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    return any(libc.unshare(flags) == 0 for flags in WANTED)
