"""The child: loads one emitted pipeline and answers requests about it over its socket.

It runs code that nobody has vetted, so it decides nothing. The parent owns clocks, seeds, prompts, reference images
and memory sampling; the child returns images, and says beforehand (in the frame at which the parent stops its clock)
what their sha256 will be.
"""

from __future__ import annotations

import dataclasses
import faulthandler
import functools
import hashlib
import importlib.util
import linecache
import os
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffopt.bench.frames import HEADER, JSON, body_length, decode, encode, read_exactly

_TRACEBACK_CHARACTERS = 8000
_MODULE = "diffopt_candidate"


def serve(connection: socket.socket, *, guards: Sequence[str] = ()) -> None:
    """Answer requests until the parent closes the socket or says exit; `guards` are told with the load."""
    faulthandler.enable()
    _opt_out_of_telemetry(Path.home())
    send, receive, frame, error_frame = connection.sendall, read_exactly, encode, _error
    pipe: Any = None
    answers: dict[str, Callable[[Any, JSON], tuple[JSON, bytes]]] = {
        "ping": lambda pipe, message: ({}, b""),
        "generate": _generate,
        "teach": _teach,
        "witnesses": lambda pipe, message: ({"witnesses": _witnesses(pipe)}, b""),
    }
    while header := receive(connection, HEADER.size):
        message = decode(receive(connection, body_length(header)))
        kind = str(message["type"])
        reply: JSON = {}
        payload = b""
        if kind == "exit":
            return
        try:
            if kind == "load":
                pipe, reply = _load(message), {"threads": _threads(), "guards": list(guards)}
            else:
                reply, payload = answers[kind](pipe, message)
            reply = {"type": "done", **reply}
        except BaseException as error:  # noqa: BLE001 - whatever a candidate raises goes to the parent
            reply = error_frame(error)
        send(frame({**reply, "id": message["id"]}))
        if payload:
            send(payload)


def _load(message: JSON) -> Any:
    path = str(message["pipeline"])
    specification = importlib.util.spec_from_file_location(_MODULE, path)
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    sys.modules[_MODULE] = module
    specification.loader.exec_module(module)
    options = {"device": message["device"], "engines": Path(str(message["engines"]))}
    if message["model"] is not None:
        options["model"] = message["model"]
    pipe = module.load(**options)
    if hasattr(pipe, "set_progress_bar_config"):
        pipe.set_progress_bar_config(disable=True)
    return pipe


def _generate(pipe: Any, message: JSON) -> tuple[JSON, bytes]:
    images, frames = _pictures(_call(pipe, message, output_type="np"))
    if images.dtype != np.uint8:
        images = images.astype(np.float32, copy=False)
    data = images.tobytes()
    announcement: JSON = {
        "shape": list(images.shape),
        "dtype": str(images.dtype),
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "frames": frames,
    }
    return announcement, data


def _pictures(result: Any) -> tuple[Any, int]:
    """Return images (n, height, width, 3) and 1, or videos with their frames one below the other, and how many."""
    if hasattr(result, "images"):
        return np.ascontiguousarray(result.images), 1
    videos = np.ascontiguousarray(result.frames)
    if videos.ndim != 5:
        raise ValueError(f"videos of shape {videos.shape}, want (n, frames, height, width, 3)")
    count, frames, height, *rest = videos.shape
    return videos.reshape(count, frames * height, *rest), frames


def _call(pipe: Any, message: JSON, **options: object) -> Any:
    from diffopt.bench.models import inputs_of
    from diffopt.bench.teaching import generators

    prompts, seeds = message["prompts"], message["seeds"]
    assert isinstance(prompts, Sequence)
    assert isinstance(seeds, Sequence)
    made, single = generators(seeds), len(prompts) == 1
    options["generator"] = made[0] if single else made
    given = inputs_of(pipe, prompts)
    return pipe(prompts[0] if single else list(prompts), **options) if given is None else pipe(**given, **options)


def _teach(pipe: Any, message: JSON) -> tuple[JSON, bytes]:
    from diffopt.bench.teaching import taught

    inputs = None if message["inputs"] is None else Path(str(message["inputs"]))
    out = Path(str(message["out"]))
    run = functools.partial(_call, pipe, message, output_type="np")
    return taught(pipe, run, inputs, out, layers=bool(message["layers"])), b""


def _witnesses(pipe: Any) -> list[JSON]:
    from diffopt.backends.runtime import witnesses

    return [dataclasses.asdict(witness) for witness in witnesses(pipe)]


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _error(error: BaseException) -> JSON:
    linecache.checkcache()
    text = "".join(traceback.format_exception(error, limit=-30))
    own = isinstance(error, OSError)
    return {
        "type": "error",
        "error": type(error).__name__,
        "message": str(error)[:_TRACEBACK_CHARACTERS],
        "traceback": text[-_TRACEBACK_CHARACTERS:],
        "errno": error.errno if own and isinstance(error, OSError) else None,
    }


def _opt_out_of_telemetry(home: Path) -> None:
    """Write the answer "no" where openvino's converter looks for it; it has no variable for that."""
    try:
        (home / "intel").mkdir(parents=True, exist_ok=True)
        (home / "intel" / "openvino_telemetry").write_text("0")
    except OSError as error:
        print(f"telemetry: {error}", file=sys.stderr)
    os.environ.setdefault("DO_NOT_TRACK", "1")
