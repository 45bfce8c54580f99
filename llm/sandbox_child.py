"""The rewriter's process: confine oneself, say how far that went, and only then receive the code and run it.

Started by `sandbox.run` as a file of its own, in an interpreter without site packages. Standard library and what is
preloaded are all there is; after confinement no file but the standard library can be opened. Result frames are four
bytes, big endian, then as many bytes of JSON (`bench.frames`).
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import struct
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

_HEADER: Final = struct.Struct(">I")
_LARGEST: Final = 1 << 20
_TRACEBACK: Final = 4000


def main(arguments: Sequence[str]) -> None:
    """Read the options, confine this process, report, run what is sent, and answer."""
    options: dict[str, Any] = json.loads(arguments[0])
    source, sink = int(options["source"]), int(options["sink"])
    layers = _confine(options)
    _send(sink, {"type": "confined", "layers": layers})
    request = json.loads(_receive(source))
    try:
        answer = {"type": "done", "value": _run(request["code"], request["function"], request["arguments"])}
        body = json.dumps(answer, allow_nan=False)
        if len(body) > _LARGEST:
            raise ValueError(f"an answer of {len(body)} characters is longer than it may be")
    except BaseException as error:  # noqa: BLE001 - whatever generated code raises is its answer
        import traceback  # late: most runs do not need it

        text = "".join(traceback.format_exception(error, limit=-8))[-_TRACEBACK:]
        answer = {"type": "error", "error": type(error).__name__, "message": str(error)[:1000], "traceback": text}
        body = json.dumps(answer)
    _write(sink, body.encode())
    os._exit(0)


def _confine(options: dict[str, Any]) -> list[str]:
    """Import what will be needed, then close door after door; return those that closed."""
    sys.path[:0] = options["paths"]
    for name in options["preload"]:
        importlib.import_module(name)
    confinement = importlib.import_module("diffopt.bench.confinement")
    namespaces = importlib.import_module("diffopt.llm.namespaces")
    seccomp = importlib.import_module("diffopt.llm.seccomp")
    del sys.path[: len(options["paths"])]
    sys.path_importer_cache.clear()
    layers = ["network-namespace"] if namespaces.leave_network() else []
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    layers += confinement.confine(confinement.Confinement.from_json(options["confinement"]))
    if seccomp.deny():
        layers.append("calls")
    return layers


def _run(code: str, function: str, arguments: Sequence[Any]) -> Any:
    names: dict[str, Any] = {"__name__": "generated"}
    exec(compile(code, "<generated>", "exec"), names)  # noqa: S102 - this process is there for nothing else
    called: Callable[..., Any] = names[function]
    return called(*arguments)


def _send(sink: int, message: dict[str, object]) -> None:
    _write(sink, json.dumps(message).encode())


def _write(sink: int, body: bytes) -> None:
    data = _HEADER.pack(len(body)) + body
    while data:
        data = data[os.write(sink, data) :]


def _receive(source: int) -> bytes:
    (length,) = _HEADER.unpack(_exactly(source, _HEADER.size))
    return _exactly(source, length)


def _exactly(source: int, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        part = os.read(source, count - len(parts))
        if not part:
            os._exit(0)  # the parent did not want to go on
        parts += part
    return bytes(parts)


if __name__ == "__main__":
    main(sys.argv[1:])
