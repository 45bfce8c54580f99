"""Keep a process inside: which files it may read and write, no network, no signals to others, bounded resources.

Linux only, without packages: Landlock and seccomp by ctypes, rlimits. A kernel that lacks a guard gives less; what was
reached is returned, so that it can be stored with what the process did. It binds the calling thread and all it starts,
for good: call it in a child, before any code that is not trusted and before it has other threads.
Not a wall for hostile GPU code: device files keep their full interface.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import stat
import struct
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER = 38, 22, 2
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 1 << 1, 1 << 2, 1 << 3
_REFER, _TRUNCATE = 1 << 13, 1 << 14
_OF_ABI_1 = (1 << 13) - 1
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_ON_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
_TCP = 0b11
_ABSTRACT_SOCKETS_AND_SIGNALS = 0b11

_CALLS: Final = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
"""Audit number of an architecture, and its number of socket()."""
_IO_URING_SETUP = 425

_CAPABILITY_VERSION = 0x20080522
_OVER_FILES = 0b11011
"""chown, dac_override, fowner and fsetid: what a container's root needs to write where it may."""

DEVICES: Final = (
    "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/shm", "/dev/dri",
    "/dev/kfd",
)  # fmt: skip
"""Device files that a program may need, beside those of NVIDIA."""

SECRETS: Final = (
    ".ssh", ".aws", ".azure", ".gnupg", ".netrc", ".docker", ".kube", ".git-credentials", ".config", ".pypirc",
    ".cache/huggingface/token", ".cache/huggingface/stored_tokens", ".bash_history", ".python_history",
)  # fmt: skip
"""What of a home folder no measured program needs."""


@dataclass(frozen=True)
class Confinement:
    """What a process may do.

    Args:
        writable: folders and files it may read, write, and make files in.
        readable: folders and files it may read and execute; ("/",) for all but what is hidden.
        hidden: what it may not even read, though it lies in a readable folder; writable folders in it stay open.
        network: whether it may open sockets other than local ones.
        file_bytes: the largest file it may write.
        cpu_s: seconds of processor time; memory_bytes: of address space (never with CUDA, which reserves more than
            there is); open_files, processes: how many (processes do not bind root). None leaves a limit as it is.
        walls: False for the limits alone.
    """

    writable: tuple[str, ...] = ()
    readable: tuple[str, ...] = ("/",)
    hidden: tuple[str, ...] = ()
    network: bool = False
    file_bytes: int | None = None
    cpu_s: int | None = None
    memory_bytes: int | None = None
    open_files: int | None = None
    processes: int | None = None
    walls: bool = True

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Confinement:
        """Read what `to_json` wrote."""
        known = {item.name for item in fields(Confinement)}
        given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items() if k in known}
        return Confinement(**given)


def confine(wanted: Confinement) -> tuple[str, ...]:
    """Confine this process for the rest of its life; return the guards that hold.

    "limits" and "capabilities" (root's, but for files) always; "files" and "processes" (no tracing of others) where the kernel has Landlock (5.13), "tcp" from
    6.7, "signals" from 6.12; "network" (no socket but local ones) where it has seccomp.

    Raises:
        OSError: a guard that the kernel has could not be put up; nothing may be run then.
    """
    _limit(wanted)
    if not wanted.walls:
        return ("limits",)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no_new_privs")
    guards = ["limits", "capabilities"]
    _keep_capabilities(libc)
    abi = landlock_version()
    if abi > 0:
        _landlock(libc, wanted, abi)
        guards += ["files", "processes"]
        guards += ["tcp"] if abi >= 4 and not wanted.network else []
        guards += ["signals"] if abi >= 6 else []
    if not wanted.network and _no_sockets(libc):
        guards.append("network")
    return tuple(guards)


def landlock_version() -> int:
    """Return the version of Landlock's interface in this kernel; 0 where there is none."""
    try:
        return max(0, int(ctypes.CDLL(None).syscall(_CREATE_RULESET, None, 0, 1)))
    except (OSError, AttributeError):
        return 0


def devices() -> tuple[str, ...]:
    """Return the device files here that a program may need."""
    nvidia = sorted(str(path) for path in Path("/dev").glob("nvidia*"))
    return tuple(path for path in (*DEVICES, *nvidia) if os.path.exists(path))


def secrets_of(home: Path) -> tuple[str, ...]:
    """Return what of a home folder is to be hidden."""
    return tuple(str(home / name) for name in SECRETS if os.path.lexists(home / name))


def open_paths(readable: tuple[str, ...], hidden: tuple[str, ...]) -> Iterator[str]:
    """Yield the paths that together cover what is readable and not hidden: the neighbours of all that is hidden."""
    secret = {os.path.realpath(path) for path in hidden}
    for path in readable:
        yield from _beside(os.path.realpath(path), secret)


def _beside(path: str, secret: set[str]) -> Iterator[str]:
    if path in secret:
        return
    prefix = path.rstrip("/") + "/"
    if not any(name.startswith(prefix) for name in secret):
        yield path
        return
    with contextlib.suppress(OSError), os.scandir(path) as entries:
        for entry in entries:
            if not entry.is_symlink():  # what a link leads to is judged by its own place
                yield from _beside(prefix + entry.name, secret)


def _limit(wanted: Confinement) -> None:
    asked = {
        resource.RLIMIT_FSIZE: wanted.file_bytes,
        resource.RLIMIT_CPU: wanted.cpu_s,
        resource.RLIMIT_AS: wanted.memory_bytes,
        resource.RLIMIT_NOFILE: wanted.open_files,
        resource.RLIMIT_NPROC: wanted.processes,
        resource.RLIMIT_CORE: 0,
    }
    for kind, value in asked.items():
        if value is not None:
            most = resource.getrlimit(kind)[1]
            value = value if most == resource.RLIM_INFINITY else min(value, most)
            resource.setrlimit(kind, (value, value))


def _keep_capabilities(libc: ctypes.CDLL) -> None:
    """Give up root's powers but those over files: with them the kernel would let it read other processes."""
    powers = (ctypes.c_uint32 * 6)()
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    if libc.capget(header, powers):
        raise OSError(ctypes.get_errno(), "capget")
    for kind in range(3):
        powers[kind] &= _OVER_FILES
        powers[kind + 3] = 0
    if libc.capset(header, powers):
        raise OSError(ctypes.get_errno(), "capset")


def _landlock(libc: ctypes.CDLL, wanted: Confinement, abi: int) -> None:
    handled = _OF_ABI_1 | (_REFER if abi >= 2 else 0) | (_TRUNCATE if abi >= 3 else 0)
    tcp = _TCP if abi >= 4 and not wanted.network else 0
    attributes = struct.pack("=QQQ", handled, tcp, _ABSTRACT_SOCKETS_AND_SIGNALS if abi >= 6 else 0)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    rules = libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(size), 0)
    if rules < 0:
        raise OSError(ctypes.get_errno(), "landlock_create_ruleset")
    try:
        for path in open_paths(wanted.readable, wanted.hidden):
            _allow(libc, rules, path, _READ & handled)
        for path in wanted.writable:
            _allow(libc, rules, path, handled)
        if libc.syscall(_RESTRICT_SELF, rules, 0):
            raise OSError(ctypes.get_errno(), "landlock_restrict_self")
    finally:
        os.close(rules)


def _allow(libc: ctypes.CDLL, rules: int, path: str, access: int) -> None:
    """Open a path to a ruleset; what is not there cannot be opened by anybody."""
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        access &= -1 if stat.S_ISDIR(os.fstat(place).st_mode) else _ON_FILES
        if libc.syscall(_ADD_RULE, rules, 1, struct.pack("=Qi", access, place), 0):
            raise OSError(ctypes.get_errno(), "landlock_add_rule", path)
    finally:
        os.close(place)


def _no_sockets(libc: ctypes.CDLL) -> bool:
    """Refuse sockets of the internet families, and io_uring, which could open some; say whether this kernel can."""
    if platform.machine() not in _CALLS:
        return False
    architecture, socket_call = _CALLS[platform.machine()]
    load, equal, above, back = 0x20, 0x15, 0x35, 0x06
    allow, refuse = 0x7FFF0000, 0x00050000 | 13
    program = [
        (load, 0, 0, 4), (equal, 0, 9, architecture),
        (load, 0, 0, 0), (above, 7, 0, 0x40000000),
        (equal, 6, 0, _IO_URING_SETUP), (equal, 0, 4, socket_call),
        (load, 0, 0, 16), (equal, 3, 0, 2), (equal, 2, 0, 10), (equal, 1, 0, 17),
        (back, 0, 0, allow), (back, 0, 0, refuse),
    ]  # fmt: skip
    text = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in program))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(text)))
    return bool(libc.prctl(_SECCOMP, _FILTER, header, 0, 0) == 0)
