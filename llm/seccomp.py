"""Deny system calls that a text-to-text rewriter has no use for: processes, sockets, signals, namespaces, kernel doors.

Standard library only: the sandboxed child loads this file before anything else of ours. The filter stays for the life
of the process and of what it starts. A list of what is denied leaks what it does not name; Landlock, the limits and
the network namespace stand beside it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import Final

_NO_NEW_PRIVS, _SET_SECCOMP, _FILTER = 38, 22, 2
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_X32: Final = 0x40000000

ARCHITECTURES: Final = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""Audit number of an architecture, and its column in `DENIED`."""

DENIED: Final[dict[str, tuple[int | None, int | None]]] = {
    # processes
    "clone": (56, 220), "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281),
    # sockets of any family: UDP too, which Landlock leaves open
    "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201),
    # other processes: signals, memory, descriptors
    "kill": (62, 129), "tkill": (200, 130), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "pidfd_open": (434, 434), "pidfd_send_signal": (424, 424), "pidfd_getfd": (438, 438),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    # code and data without a file
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "shmat": (30, 196),
    "msgget": (68, 186), "semget": (64, 190), "mq_open": (240, 180),
    # namespaces and mounts
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    # doors of the kernel
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "keyctl": (250, 219), "add_key": (248, 217),
    "request_key": (249, 218), "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "kexec_load": (246, 104), "reboot": (169, 142), "swapon": (167, 224), "acct": (163, 89), "quotactl": (179, 60),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171), "clock_adjtime": (305, 266),
    "personality": (135, 92), "syslog": (103, 116),
}  # fmt: skip
"""System calls by name, with their numbers on each architecture; `None` where there is none."""

CLONE3: Final = 435
"""Answered as if the kernel had none, so that the C library falls back on `clone`, which is denied."""


def deny() -> bool:
    """Install the filter for this process; return whether it holds.

    Also gives up gaining privileges. False where the architecture or the kernel does not take part.
    """
    known = ARCHITECTURES.get(os.uname().machine)
    libc = ctypes.CDLL(None, use_errno=True)
    if known is None or libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    code = _program(*known)
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer))
    return bool(libc.prctl(_SET_SECCOMP, _FILTER, program, 0, 0) == 0)


def _program(audit: int, column: int) -> bytes:
    """Write the filter in the kernel's classic BPF."""
    lines = [
        (_LOAD, 0, 0, 4),  # architecture
        (_EQUAL, 1, 0, audit),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),  # number of the call
    ]
    if audit == ARCHITECTURES["x86_64"][0]:
        lines += [(_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _KILL)]
    for number in sorted(n for pair in DENIED.values() if (n := pair[column]) is not None):
        lines += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | errno.EPERM)]
    lines += [(_EQUAL, 0, 1, CLONE3), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS), (_RETURN, 0, 0, _ALLOW)]
    return b"".join(struct.pack("HBBI", *line) for line in lines)
