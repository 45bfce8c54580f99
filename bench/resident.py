"""The parent's handle of one worker: requests with deadlines, a clock, a memory limit, and how it ended."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import select
import signal
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from diffopt.bench.capture import Capture
from diffopt.bench.confinement import Confinement
from diffopt.bench.disk import DiskWatch, clear, make_folder, write_new, writing
from diffopt.bench.forkserver import EXIT_STATUS, ForkServer
from diffopt.bench.frames import HEADER, JSON, FrameError, body_length, decode, encode, payload_shape
from diffopt.bench.memory import MemoryWatch
from diffopt.bench.outcome import Failed

Images = npt.NDArray[np.float32]

_LOG_SHOWN = 4000
_TICK_S = 0.1
_KILL_S = 10
_OUT_OF_MEMORY = {"MemoryError", "OutOfMemoryError"}


class Died(Exception):
    """A worker can no longer be used, or a request of it failed; `failed` is what to report."""

    def __init__(self, resident: Resident, failed: Failed) -> None:
        super().__init__(f"{resident.name}: {failed.kind}: {failed.message}")
        self.resident, self.failed = resident, failed


@dataclass(frozen=True)
class Reply:
    """An answer: its fields, the seconds until it arrived, and images (n, height, width, channels) in [0, 1]."""

    message: JSON
    seconds: float
    images: Images


class Resident:
    """A worker process that stays, and runs only while its parent waits for it.

    Between requests the worker and all it started are stopped (SIGSTOP), so two residents never compete: spinning
    threads and background work of one cannot slow the other. One owner, one thread. After `Died` from a death the
    process group is gone; `close` is always safe.

    Args:
        name: for messages.
        folder: the worker's working directory, created; its log goes to worker.log there.
        environment: added for this worker.
        memory_limit: bytes of resident memory of all its processes at which it is killed.
        disk_limit: bytes in its folder at which it is killed; None for no such limit.
        confinement: what else it may do.
    """

    def __init__(
        self,
        server: ForkServer,
        name: str,
        folder: Path,
        *,
        environment: Mapping[str, str],
        memory_limit: int,
        disk_limit: int | None = None,
        confinement: Confinement = Confinement(file_bytes=64 << 30, network=True),  # noqa: B008 - frozen
    ) -> None:
        self.name, self._server, self._folder, self._memory_limit = name, server, folder, memory_limit
        if (folder / "tmp").is_symlink() or (folder / "tmp").is_file():  # left by the program's process before
            clear(folder / "tmp")
        make_folder(folder / "tmp")
        self._disk = DiskWatch(folder, disk_limit)
        self._spawned = server.spawn(folder, environment=environment, confinement=confinement)
        self._log = Capture()
        self._spawned.connection.setblocking(False)
        os.set_blocking(self._spawned.log, False)
        self._poll = select.poll()
        for descriptor in (self._spawned.connection.fileno(), self._spawned.log, self._spawned.exit):
            self._poll.register(descriptor, select.POLLIN)
        self._watch = MemoryWatch(self.pid, self.members)
        self._sample_at = 0.0
        self._alive, self._stopped = True, False

    @property
    def pid(self) -> int:
        """The worker's process id and process group."""
        return self._spawned.pid

    @property
    def alive(self) -> bool:
        """Whether requests can be sent."""
        return self._alive

    @property
    def peak_bytes(self) -> int:
        """The peak resident memory of its processes so far."""
        if self._alive:
            self._watch.sample()
        return self._watch.peak_bytes

    def load(self, pipeline: Path, *, model: str | None, device: str, engines: Path, deadline_s: float) -> Reply:
        """Run an emitted pipeline's `load`.

        Raises:
            Died: "build" when it raised, or how the process ended.
        """
        fields: JSON = {"pipeline": str(pipeline), "model": model, "device": device, "engines": str(engines)}
        return self.request("load", fields, deadline_s=deadline_s)

    def generate(self, prompts: list[str], seeds: list[int], *, deadline_s: float) -> Reply:
        """Make one image a prompt, each from a generator with its own seed, in one call.

        Raises:
            Died: "crash" when it raised, "protocol" when the bytes are not those announced, or how it ended.
        """
        return self.request("generate", {"prompts": prompts, "seeds": seeds}, deadline_s=deadline_s)

    def request(self, kind: str, fields: JSON, *, deadline_s: float) -> Reply:
        """Send one request and wait for its answer, `deadline_s` seconds at most.

        Raises:
            Died: there is no good answer.
        """
        if not self._alive:
            raise Died(self, Failed("crash", "the process has ended", self._log.text()[-_LOG_SHOWN:]))
        self._resume()
        self._exchange("ping", {}, 30.0 + deadline_s)
        reply = self._exchange(kind, fields, deadline_s)
        self._pause()
        return reply

    def close(self) -> None:
        """Kill the process group and write its log."""
        if self._alive:
            self._end()

    def _exchange(self, kind: str, fields: JSON, deadline_s: float) -> Reply:
        nonce = secrets.token_hex(8)
        frame = encode({"type": kind, "id": nonce, **fields})
        start = time.perf_counter()
        until = time.monotonic() + deadline_s
        self._sample_at = time.monotonic() + _TICK_S
        self._write(frame, until)
        try:
            body = self._read(body_length(self._read(HEADER.size, until, kind)), until, kind)
            seconds = time.perf_counter() - start
            message = decode(body)
            if message.get("id") != nonce or message.get("type") not in ("done", "error"):
                raise FrameError("a frame answers no request")
            if message["type"] == "error":
                self._raise_error(kind, message)
            images = self._images(message, until) if kind == "generate" else np.empty((0, 1, 1, 3), np.float32)
        except FrameError as error:
            self._die("protocol", str(error))
        return Reply(message, seconds, images)

    def _images(self, message: JSON, until: float) -> Images:
        shape, dtype, size, digest = payload_shape(message)
        data = self._read(size, until, "generate")
        if hashlib.sha256(data).hexdigest() != digest:
            raise FrameError("the image bytes are not those that were announced")
        if dtype == "uint8":
            return np.frombuffer(data, np.uint8).reshape(shape).astype(np.float32) / np.float32(255)
        return np.frombuffer(data, np.float32).reshape(shape)

    def _raise_error(self, kind: str, message: JSON) -> NoReturn:
        name, text = str(message.get("error")), str(message.get("message"))
        status = "build" if kind == "load" else "crash"
        status = "memory" if name in _OUT_OF_MEMORY else status
        line = " ".join(f"{name}: {text}".split())[:500]
        self._pause()
        raise Died(self, Failed(status, f"{line} (in {kind})", str(message.get("traceback"))))

    def _write(self, data: bytes, until: float) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[self._spawned.connection.send(view) :]
            except BlockingIOError:
                self._wait(until, "the request")
            except OSError:
                self._died()

    def _read(self, count: int, until: float, kind: str) -> bytes:
        data, filled = bytearray(count), 0
        view = memoryview(data)
        while filled < count:
            try:
                received = self._spawned.connection.recv_into(view[filled:])
            except BlockingIOError:
                self._wait(until, kind)
                continue
            except OSError:
                received = 0
            if not received:
                self._died()
            filled += received
        return bytes(data)

    def _wait(self, until: float, kind: str) -> None:
        now = time.monotonic()
        if now >= until:
            self._die("timeout", f"no answer to {kind} in time")
        if now >= self._sample_at:
            self._sample_at = now + _TICK_S
            used = self._watch.sample()
            if used > self._memory_limit:
                self._die("memory", f"used {used >> 20} MiB, the limit is {self._memory_limit >> 20} MiB")
            full = self._disk.fault()
            if full:
                self._die("disk", full)
        ready = {fd for fd, _ in self._poll.poll(1000 * min(_TICK_S, until - now))}
        if self._spawned.log in ready and not self._log.drain(self._spawned.log):
            self._poll.unregister(self._spawned.log)
        if self._spawned.exit in ready and self._spawned.connection.fileno() not in ready:
            self._died()

    def _died(self) -> NoReturn:
        code = self._end()
        if code is None:
            self._raise("crash", "closed its connection, or the measuring process was killed")
        if code >= 0:
            self._raise("crash", f"exited with code {code} in the middle of a request")
        name = signal.Signals(-code).name if -code in set(signal.Signals) else ""
        full = -code == signal.SIGKILL and self._watch.now_bytes > self._memory_limit // 2
        self._raise("memory" if full else "crash", f"killed by signal {-code} {name}".rstrip())

    def _die(self, kind: str, message: str) -> NoReturn:
        self._end()
        self._raise(kind, message)

    def _raise(self, kind: str, message: str) -> NoReturn:
        raise Died(self, Failed(kind, message, self._log.text()[-_LOG_SHOWN:]))

    def _end(self) -> int | None:
        """Kill the group and all strays; return how the worker had ended by itself, if it had."""
        self._alive = False
        ended = select.poll()
        ended.register(self._spawned.exit, select.POLLIN)
        grace = ended.poll(200 if self._spawned.connection.fileno() < 0 or self._hung_up() else 0)
        until = time.monotonic() + _KILL_S
        while (members := self.members()) and time.monotonic() < until:
            for pid in members:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.002)
        status = os.read(self._spawned.exit, EXIT_STATUS.size) if ended.poll(1000 * _KILL_S) else b""
        while self._log.drain(self._spawned.log):
            pass
        self._server.forget(self.pid)
        self._spawned.connection.close()
        for descriptor in (self._spawned.log, self._spawned.exit):
            os.close(descriptor)
        with writing(self._folder / "worker.log"):
            write_new(self._folder / "worker.log", self._log.text().encode("utf-8", "replace"))
        return int(EXIT_STATUS.unpack(status)[0]) if grace and len(status) == EXIT_STATUS.size else None

    def _hung_up(self) -> bool:
        try:
            return self._spawned.connection.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def members(self) -> set[int]:
        """Return the process ids of the worker and of all it started."""
        return self._server.family(self.pid)

    def reaper(self) -> int | None:
        """Return the process id of who reaps what has lost its parent there."""
        return self._server.pid

    def _pause(self) -> None:
        self._signal(signal.SIGSTOP)
        self._watch.sample()
        self._stopped = True

    def _resume(self) -> None:
        if self._stopped:
            self._signal(signal.SIGCONT)
        self._stopped = False

    def _signal(self, number: signal.Signals) -> None:
        for pid in self._watch.look():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
