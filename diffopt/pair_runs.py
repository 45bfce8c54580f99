"""Run the programs that pairs of passes come to: each once, in a process of its own, forked from one that has imported all."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import queue
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import numpy as np

from diffopt.backends import BackendError
from diffopt.bench.confinement import Confinement
from diffopt.bench.environment import allowed, worker_environment
from diffopt.bench.forkserver import PRELOAD, ForkServer
from diffopt.bench.resident import Died, Resident
from diffopt.bench.stand_ins import write_stand_ins

PROMPT: Final = "a red circle"
EAGER: Final = """\
import torch as _torch

_compile = _torch.compile
_torch.compile = lambda model=None, **_: _compile(model, backend="eager")
"""
"""Put into each process first: what compilers trace is tried, and not the code that they would generate."""
_OPTIONAL = tuple(name for name in ("peft", "nncf") if importlib.util.find_spec(name) is not None)
_PRELOAD = (*PRELOAD, "torch._dynamo", "diffusers:UNet2DConditionModel", *_OPTIONAL)
_MEMORY = 6 << 30
_OPEN = Confinement(file_bytes=64 << 30, network=False, walls=False)


def run_programs(
    programs: Iterable[str], model: Path, *, processes: int, limit_s: float = 120.0
) -> Iterator[tuple[str, str]]:
    """Yield each program with "" if it made an image, or what stopped it, as they end; quick ones come first.

    An engine is built once for all programs that share it.

    Args:
        model: the model directory that the stand-ins for what only a user can name are made for.
        processes: how many run beside one another, one thread each.
        limit_s: seconds for loading with all building, and again for the image.
    """
    slow = ("export", "compile", "capture", "calibrate", "fuse_pipeline")
    ordered = sorted(programs, key=lambda code: (sum(word in code for word in slow), code))
    environment = allowed(os.environ, home=Path.home(), threads=1)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="diffopt-pairs-")))
        write_stand_ins(folder, model)
        (folder / "engines").mkdir()
        free: queue.SimpleQueue[ForkServer] = queue.SimpleQueue()
        for number in range(min(processes, len(ordered))):
            server = ForkServer(folder / str(number), environment=environment, preload=_PRELOAD)
            free.put(stack.enter_context(server))
        pool = stack.enter_context(ThreadPoolExecutor(processes))

        def work(code: str) -> tuple[str, str]:
            server = free.get()
            try:
                return code, _run(server, code, folder, limit_s)
            finally:
                free.put(server)

        waiting = [pool.submit(work, code) for code in ordered]
        stack.callback(pool.shutdown, cancel_futures=True)
        for done in as_completed(waiting):
            yield done.result()


def _run(server: ForkServer, code: str, folder: Path, limit_s: float) -> str:
    """Return "" if a program made a finite image, or `refused: ` and its sentence, or how it broke."""
    own = folder / hashlib.sha256(code.encode()).hexdigest()[:16]
    own.mkdir()
    (own / "models").symlink_to(folder / "models")
    file = own / "pipeline.py"
    file.write_text(EAGER + code, encoding="utf-8")
    engines = folder / "engines"
    try:
        environment = worker_environment(own, engines)
        resident = Resident(server, "pair", own, environment=environment, memory_limit=_MEMORY, confinement=_OPEN)
        try:
            resident.load(file, model=None, device="cpu", engines=engines, deadline_s=limit_s)
            images = resident.generate([PROMPT], [0], deadline_s=limit_s).images
        finally:
            resident.close()
    except Died as death:
        return _told(death.failed.message)
    return "" if bool(np.isfinite(images).all()) else "the image is not finite"


def _told(message: str) -> str:
    name, _, text = message.partition(": ")
    if name == BackendError.__name__ or "requires accelerator" in text:
        return f"refused: {text.rpartition(' (in ')[0] or text}"
    return message[:200]
