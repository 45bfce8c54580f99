"""Run a function of generated code, text in and text out, in a process that can do nothing else.

Three processes take part in what a language model wrote. The *rewriter*, started here, has libcst and no torch, sees
the text it is given and answers with text. The *runner* is the worker of `bench`, which executes what was rewritten.
The *judge* is this process: it owns clocks, seeds, references and verdicts, and runs nothing that was generated.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pydantic import JsonValue

from diffopt.bench.confinement import Confinement
from diffopt.bench.frames import HEADER, FrameError, body_length, decode, encode
from diffopt.ir.errors import DiffoptError
from diffopt.llm.bubblewrap import wrapped

Status = Literal["ok", "error", "timeout", "killed", "output", "protocol", "unconfined"]
"""How a run ended.

ok: there is a value. error: the code raised. timeout: not done by the deadline. killed: the process died, by a limit
or by itself. output: it wrote more than it may. protocol: what it answered is no answer. unconfined: the sandbox did
not reach the level that was asked for, and no line of the code was run.
"""

LEVELS: Final = ("process", "limits", "files", "network", "calls", "container")
"""What holds at each level, together with all below it.

process: an interpreter, session, environment and folder of its own. limits: processor time, memory, files. files: no
file but the standard library can be opened (Landlock). network: no socket, and an empty network. calls: no process can
be started and no signal sent (seccomp). container: in bubblewrap besides.
"""

_GUARDS: Final = {"limits": "limits", "files": "files", "network": "network", "calls": "calls", "bwrap": "container"}
PRELOAD: Final = ("libcst", "libcst.native")


@dataclass(frozen=True)
class Limits:
    """What a run may take.

    Args:
        level: the least level (index in `LEVELS`) at which the code may run at all.
        seconds: by the parent's clock, from sending the code to its answer; cpu_s: of processor time.
        memory_bytes: of address space.
        output_bytes: of standard output and error together.
        bubblewrap: wrap the process where `bwrap` is installed.
    """

    level: int = 4
    seconds: float = 10.0
    start_seconds: float = 20.0
    cpu_s: int = 8
    memory_bytes: int = 1 << 30
    output_bytes: int = 1 << 20
    bubblewrap: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.level < len(LEVELS):
            raise DiffoptError(f"the sandbox has levels 0 to {len(LEVELS) - 1}, not {self.level}", "--sandbox-level")


@dataclass(frozen=True)
class Ran:
    """What came of a run. `level` and `guards` say how it was confined; `seconds` is by this process's clock."""

    status: Status
    value: JsonValue
    message: str
    log: str
    level: int
    guards: tuple[str, ...]
    seconds: float
    start_seconds: float


def run(
    code: str,
    function: str,
    arguments: Sequence[JsonValue],
    limits: Limits | None = None,
    *,
    preload: Sequence[str] = PRELOAD,
    hash_seed: int = 0,
    clock: Callable[[], float] = time.monotonic,
) -> Ran:
    """Call a function of the code in a fresh, confined process.

    Args:
        code: text of a module; it sees what is preloaded and the standard library.
        arguments: of the function; JSON values.
        preload: modules imported before the doors close; others of installed packages cannot be imported.
        hash_seed: of the child's hashes: code that depends on the order of a set differs between two of them.
    """
    limits = limits or Limits()
    child = _Child(limits, preload, hash_seed, clock)
    try:
        return child.run({"code": code, "function": function, "arguments": list(arguments)})
    finally:
        child.close()


def level_of(guards: Sequence[str]) -> int:
    """Return the highest level of which nothing below is missing."""
    reached = {"process", *(_GUARDS[guard] for guard in guards if guard in _GUARDS)}
    return next((number - 1 for number, name in enumerate(LEVELS) if name not in reached), len(LEVELS) - 1)


class _Child:
    """One process, from start to end."""

    def __init__(self, limits: Limits, preload: Sequence[str], hash_seed: int, clock: Callable[[], float]) -> None:
        self.limits, self.clock = limits, clock
        self.log, self.guards = bytearray(), tuple[str, ...]()
        self.frames = bytearray()
        self.too_much = False
        source, self.request = os.pipe()
        self.answer, sink = os.pipe()
        log_out, log_in = os.pipe()
        self.output = log_out
        # Landlock and the limits close what is here; what the child may still read is the standard library.
        library = str(Path(sysconfig.get_path("stdlib")).resolve())
        confinement = Confinement(
            readable=(library,), file_bytes=0, cpu_s=limits.cpu_s, memory_bytes=limits.memory_bytes, open_files=64,
            processes=0,
        )  # fmt: skip
        options = {
            "source": source, "sink": sink, "preload": list(preload), "paths": _paths(preload),
            "confinement": confinement.to_json(),
        }  # fmt: skip
        command = [sys.executable, "-S", "-s", "-P", "-B", str(Path(__file__).with_name("sandbox_child.py"))]
        self.wrapped = limits.bubblewrap and shutil.which("bwrap") is not None
        command = wrapped(command, _paths(preload)) if self.wrapped else command
        self.started = clock()
        self.process = subprocess.Popen(
            [*command, json.dumps(options)], cwd="/", env=_environment(hash_seed), pass_fds=(source, sink),
            stdin=subprocess.DEVNULL, stdout=log_in, stderr=log_in, start_new_session=True,
        )  # fmt: skip
        for end in (source, sink, log_in):
            os.close(end)
        self.selector = selectors.DefaultSelector()
        for end in (self.answer, self.output):
            os.set_blocking(end, False)
            self.selector.register(end, selectors.EVENT_READ)

    def run(self, request: Mapping[str, JsonValue]) -> Ran:
        """Wait for the confinement, send the code, wait for the answer."""
        hello = self._frame(self.started + self.limits.start_seconds)
        sent = self.clock()
        start = sent - self.started
        if isinstance(hello, str):
            return self._end("unconfined", f"the sandbox did not start: {hello}", 0.0, start)
        said = hello.get("layers")
        self.guards = (*(map(str, said) if isinstance(said, list) else ()), *(("bwrap",) if self.wrapped else ()))
        level = level_of(self.guards)
        if level < self.limits.level:
            missing = ", ".join(LEVELS[level + 1 : self.limits.level + 1])
            return self._end("unconfined", f"level {level}, {self.limits.level} is asked for: no {missing}", 0.0, start)
        try:
            _write(self.request, encode(dict(request)))
        except FrameError as error:
            return self._end("protocol", f"what is to be rewritten cannot be sent: {error}", 0.0, start)
        except BrokenPipeError:
            pass  # it is dead already; what is read next says how
        reply = self._frame(sent + self.limits.seconds)
        seconds = self.clock() - sent
        if isinstance(reply, str):
            return self._end(self._why(reply), reply, seconds, start)
        kind, value = reply.get("type"), reply.get("value")
        if kind == "done" and set(reply) == {"type", "value"}:
            return self._end("ok", "", seconds, start, value)  # type: ignore[arg-type]
        if kind == "error":
            message = f"{reply.get('error')}: {reply.get('message')}"
            self.log += str(reply.get("traceback", "")).encode()
            return self._end("error", message[:1000], seconds, start)
        return self._end("protocol", "the answer is of no known kind", seconds, start)

    def close(self) -> None:
        """End the process and all it may have started; wait for it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        self.selector.close()
        for end in (self.request, self.answer, self.output):
            os.close(end)

    def _frame(self, deadline: float) -> dict[str, object] | str:
        """Return the next frame, or why there is none."""
        while True:
            try:
                length = body_length(bytes(self.frames[: HEADER.size])) if len(self.frames) >= HEADER.size else None
                if length is not None and len(self.frames) >= HEADER.size + length:
                    body = bytes(self.frames[HEADER.size : HEADER.size + length])
                    del self.frames[: HEADER.size + length]
                    return decode(body)
            except FrameError as error:
                return f"protocol: {error}"
            left = deadline - self.clock()
            if left <= 0:
                return "timeout: no answer by the deadline"
            if not self._read(left):
                return self._death()
            if self.too_much:
                return f"output: more than {self.limits.output_bytes} bytes were written"

    def _read(self, seconds: float) -> bool:
        """Take in what is there; False once the answer's pipe is closed."""
        for key, _ in self.selector.select(seconds):
            end = int(key.fileobj)  # type: ignore[arg-type]
            part = os.read(end, 1 << 16)
            if not part:
                if end == self.answer:
                    return False
                self.selector.unregister(end)
            elif end == self.answer:
                self.frames += part
            else:
                self.too_much = self.too_much or len(self.log) + len(part) > self.limits.output_bytes
                self.log = (self.log + part)[: self.limits.output_bytes]
        return True

    def _death(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(1.0)
        code = self.process.poll()
        if code is not None and code < 0:
            return f"killed: ended by {signal.Signals(-code).name}"
        return f"killed: ended with code {code} and no answer"

    @staticmethod
    def _why(said: str) -> Status:
        kinds: dict[str, Status] = {"timeout": "timeout", "output": "output", "protocol": "protocol"}
        return kinds.get(said.partition(":")[0], "killed")

    def _end(self, status: Status, message: str, seconds: float, start: float, value: JsonValue = None) -> Ran:
        log = self.log.decode("utf-8", "replace")[-4000:]
        return Ran(status, value, message, log, level_of(self.guards), self.guards, seconds, start)


def _paths(preload: Sequence[str]) -> list[str]:
    """Return the folders that hold what is preloaded and what of ours the child needs to confine itself."""
    import importlib.util

    import diffopt

    places = [Path(diffopt.__file__).resolve().parent.parent]
    for name in preload:
        found = importlib.util.find_spec(name.partition(".")[0])
        if found is not None and found.origin is not None:
            places.append(Path(found.origin).resolve().parent.parent)
    return list(dict.fromkeys(map(str, places)))


def _environment(hash_seed: int) -> dict[str, str]:
    """Return all that the child sees of an environment: nothing of this process's."""
    return {"LANG": "C.UTF-8", "PYTHONHASHSEED": str(hash_seed), "OMP_NUM_THREADS": "1"}


def _write(end: int, data: bytes) -> None:
    while data:
        data = data[os.write(end, data) :]
