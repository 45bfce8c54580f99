"""Two contenders, each in a process of its own that is stopped while the other runs, timed in pairs."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

from diffopt.bench.bakeoff.contender import answer

PAIRS = 40
SECONDS = 2.0
"""The most pairs of a race, and the most time, whichever is reached first; ten pairs at least."""


def preload() -> None:
    """Import what every contender needs. Nothing of torch is run here: its threads would not live on in a child."""
    import diffusers
    import transformers.models.clip
    import transformers.models.t5

    # These load late, when they are asked for.
    _ = (
        diffusers.StableDiffusionPipeline, diffusers.StableDiffusion3Pipeline, diffusers.StableDiffusionXLPipeline,
        diffusers.PixArtSigmaPipeline, transformers.models.clip.CLIPTextModel, transformers.models.t5.T5EncoderModel,
    )  # fmt: skip


class Racer:
    """A process that runs one thing when it is asked, and is stopped while it is not: waiting threads of one runtime spin.

    Forked from this process, which has the libraries loaded and has run nothing of them.
    """

    def __init__(self, name: str, component: str, backend: str, precision: str, folder: Path) -> None:
        context = multiprocessing.get_context("fork")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=answer, args=(name, component, backend, precision, folder, theirs))
        self._process.start()
        theirs.close()

    def ask(self, what: str) -> dict[str, Any]:
        """Return the answer. Raises EOFError if the process has ended."""
        pid = self._process.pid or 0
        os.kill(pid, signal.SIGCONT)
        self._pipe.send_bytes(what.encode())
        answer: dict[str, Any] = json.loads(self._pipe.recv_bytes())
        os.kill(pid, signal.SIGSTOP)
        return answer

    def close(self) -> int | None:
        """End the process and return its exit code."""
        self._process.kill()
        self._process.join()
        return self._process.exitcode


def raced(eager: Racer, engine: Racer) -> dict[str, Any]:
    """Time both in pairs, in random order, after both have run warm; then check the engine's results.

    eager: loaded. The processor's ceilings are taken right after the race, so that both see one pace of it.
    """
    import numpy as np

    from diffopt.bench.statistics import median, paired_ratio

    facts = engine.ask("load")
    if "failed" in facts:
        return facts
    rng, times = random.Random(0), (list[float](), list[float]())
    for _ in range(5):
        eager.ask("run")
        engine.ask("run")
    end = time.perf_counter() + SECONDS
    while len(times[0]) < PAIRS and (len(times[0]) < 10 or time.perf_counter() < end):
        for who in rng.sample((0, 1), 2):
            times[who].append(float((eager, engine)[who].ask("run")["seconds"]))
    interval = paired_ratio(*times, rng=np.random.default_rng(0))
    return {
        "ratio": interval.ratio, "lo": interval.lo, "hi": interval.hi, "pairs": interval.pairs,
        "eager_ms": 1e3 * median(times[0]), "engine_ms": 1e3 * median(times[1]),
        "ceilings": eager.ask("ceilings"), **eager.ask("flops"),
        "eager_s": times[0], "engine_s": times[1], **facts, **engine.ask("check"),
    }  # fmt: skip
