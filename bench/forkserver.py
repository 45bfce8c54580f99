"""A process that has imported torch and diffusers once and forks workers from that state.

Not `multiprocessing`: its children import the user's `__main__` again. The server is started by
`python -I -m diffopt.bench.forkserver`, so that neither the current folder nor PYTHON* variables reach it. It never
runs a parallel region of torch, or a fork would inherit a dead thread pool. It is the reaper of everything below it;
when its parent goes away it kills all that and ends, and its workers die with it however it ends.

Parent and server talk over a SOCK_SEQPACKET pair: a JSON object and the worker's three file descriptors (its socket,
its log pipe, and the pipe on which the server reports how it ended).
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import resource
import selectors
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn, Self

from diffopt.bench import memory
from diffopt.bench.confinement import Confinement, confine
from diffopt.bench.disk import make_folder, writing
from diffopt.ir.errors import DiffoptError

PRELOAD: Final = (
    "numpy",
    "torch",
    "transformers:CLIPTextModel",
    "transformers:CLIPTokenizer",
    "diffusers:StableDiffusionPipeline",
    "diffusers:OnnxRuntimeModel",
    "diffopt.backends.runtime",
    "diffopt.bench.worker",
)
"""What every pipeline needs as it loads: imported once here, it is not imported again in every worker."""

EXIT_STATUS: Final = struct.Struct(">i")
_PARENT_DEATH_SIGNAL = 1
_SUBREAPER = 36
_MESSAGE = 1 << 16


@dataclass(frozen=True)
class Spawned:
    """A new worker: its process id and the parent's ends of its socket, log and exit pipes."""

    pid: int
    connection: socket.socket
    log: int
    exit: int


class ForkServer:
    """The parent's handle of the server; a context manager.

    One owner, one thread. `spawn` starts the server again if something killed it; its workers die with it.

    Args:
        folder: where the server writes its own log.
        environment: all that workers see of the environment, see `environment.allowed`.
        cpus: the cores for the server and its workers; None for all that this process may use.
        preload: modules, or `module:attribute` for lazy ones, imported before any fork.
        python: the interpreter, of an environment that can import diffopt too.
    """

    def __init__(
        self,
        folder: Path,
        *,
        environment: Mapping[str, str],
        cpus: Sequence[int] | None = None,
        preload: Sequence[str] = PRELOAD,
        start_timeout_s: float = 300.0,
        python: str = sys.executable,
    ) -> None:
        self._python = python
        self._folder, self._environment, self._cpus = folder, dict(environment), cpus
        self._preload, self._start_timeout_s = tuple(preload), start_timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._live: set[int] = set()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The server's process id, or None while it does not run."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> None:
        """Start the server and wait until it has imported everything."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        log = make_folder(self._folder) / "forkserver.log"
        options = json.dumps({"cpus": list(self._cpus) if self._cpus else None, "preload": self._preload})
        command = [self._python, "-I", "-m", "diffopt.bench.forkserver", str(theirs.fileno()), options]
        with theirs, writing(log), log.open("ab") as sink:
            self._process = subprocess.Popen(
                command, cwd=self._folder, env=self._environment, pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True,
            )  # fmt: skip
        self._control, self._live = ours, set()
        ours.settimeout(self._start_timeout_s)
        try:
            answer = ours.recv(_MESSAGE)
        except OSError:
            answer = b""
        if not answer:
            self.close()
            raise DiffoptError("the measuring process did not start", where=str(log), hint="see the end of that file")
        ours.settimeout(30.0)

    def spawn(self, folder: Path, *, environment: Mapping[str, str], confinement: Confinement) -> Spawned:
        """Fork a worker whose working directory is `folder`.

        Args:
            folder: the worker's own folder; it exists.
            environment: added to the server's own for this worker.
            confinement: what the worker may do.
        """
        request: dict[str, object] = {
            "folder": str(folder),
            "environment": dict(environment),
            "confinement": confinement.to_json(),
        }
        for _ in range(2):
            spawned = self._ask(request) if self.pid is not None else None
            if spawned:
                return spawned
            self.close()
            self.start()
        raise DiffoptError("the measuring process has ended", where=str(self._folder / "forkserver.log"))

    def _ask(self, request: dict[str, object]) -> Spawned | None:
        """Send a request with a worker's ends of its pipes; None when the server has just died."""
        ours, theirs = socket.socketpair()
        log_out, log_in = os.pipe()
        exit_out, exit_in = os.pipe()
        assert self._control is not None
        try:
            socket.send_fds(self._control, [json.dumps(request).encode()], [theirs.fileno(), log_in, exit_in])
            pid = int(json.loads(self._control.recv(_MESSAGE))["pid"])
        except (OSError, ValueError):
            ours.close()
            _close(log_out, exit_out)
            return None
        finally:
            theirs.close()
            _close(log_in, exit_in)
        self._live.add(pid)
        return Spawned(pid, ours, log_out, exit_out)

    def forget(self, pid: int) -> None:
        """Stop counting a worker as live: it has ended."""
        self._live.discard(pid)

    def family(self, pid: int) -> set[int]:
        """Return a worker's processes: all below it, and strays below the server that belong to no live worker."""
        tree = memory.parents()
        own = memory.descendants(pid, tree)
        if self.pid is None:
            return own
        others = set().union(*(memory.descendants(other, tree) for other in self._live - {pid}))
        return own | memory.descendants(self.pid, tree) - {self.pid} - others

    def close(self) -> None:
        """End the server and, with it, every worker."""
        if self._control:
            self._control.close()
        if self._process:
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._control, self._process = None, None


def serve(control: socket.socket, *, cpus: Sequence[int] | None, preload: Sequence[str]) -> None:
    """Import what workers need, then fork one for every request until the parent goes away."""
    if cpus:
        os.sched_setaffinity(0, cpus)
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    woken, wake = os.pipe()
    for end in (woken, wake):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    start = time.monotonic()
    for name in preload:
        module, _, attribute = name.partition(":")
        loaded = importlib.import_module(module)
        _ = getattr(loaded, attribute) if attribute else None
    gc.collect()
    gc.freeze()
    control.send(json.dumps({"ready_s": time.monotonic() - start}).encode())
    exits: dict[int, int] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        while True:
            ready = [key.fileobj for key, _ in selector.select()]
            if woken in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(woken, 4096)
                _reap(exits)
            if control in ready and not _answer(control, exits):
                break
    for pid in memory.descendants(os.getpid(), memory.parents()) - {os.getpid()}:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _answer(control: socket.socket, exits: dict[int, int]) -> bool:
    data, descriptors, _, _ = socket.recv_fds(control, _MESSAGE, 3)
    if not data:
        return False
    connection, log, report = descriptors
    pid = os.fork()
    if pid == 0:
        _become_worker(json.loads(data), connection, log)
    _close(connection, log)
    exits[pid] = report
    control.send(json.dumps({"pid": pid}).encode())
    return True


def _reap(exits: dict[int, int]) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        report = exits.pop(pid, None)
        if report is not None:
            with contextlib.suppress(OSError):
                os.write(report, EXIT_STATUS.pack(os.waitstatus_to_exitcode(status)))
            os.close(report)


def _become_worker(request: dict[str, object], connection: int, log: int) -> NoReturn:
    try:
        ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((connection, 200), (nothing, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        os.dup2(200, 3, inheritable=False)
        os.closerange(4, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        os.chdir(str(request["folder"]))
        environment = request["environment"]
        assert isinstance(environment, dict)
        os.environ.update(environment)
        tempfile.tempdir = (
            None  # what was imported before the fork may have remembered a folder that is closed to workers
        )
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")
        worker = importlib.import_module("diffopt.bench.worker")
        confinement = request["confinement"]
        assert isinstance(confinement, dict)
        worker.serve(socket.socket(fileno=3), guards=confine(Confinement.from_json(confinement)))
    except BaseException:  # noqa: BLE001 - a child must never return into the server's loop
        sys.excepthook(*sys.exc_info())
        os._exit(70)
    os._exit(0)


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), **json.loads(sys.argv[2]))
