"""Train built-in models within a given time: `python -m diffopt.bench.models.train --model all --seconds 240 --out DIR`.

One process draws the scenes, then every model is trained in a process of its own on the same device. What is trained
lands in DIR as two archives; `--integrate DIR --model NAMES` writes those that are good enough into the package.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from diffopt.bench.models.learning.archive import pack, unpack
from diffopt.bench.models.learning.drawing_pool import drawn_in_parallel
from diffopt.bench.models.learning.loop import NotRecorded
from diffopt.bench.models.learning.one import POOLS, RECIPES, train_one

_GRACE_S = 5.0
"""After the deadline, before what still runs (an evaluation, that is) is killed."""
_PACK_S = 20.0
"""Seconds between two archives of what there is, so that a run cut off leaves something."""


def main() -> None:
    """Train, or take over what was trained."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="all", help=f"all, or some of {','.join(RECIPES)}")
    parser.add_argument("--seconds", type=float, default=240, help="wall time in all, from the start to the last file")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--out", type=Path, default=Path("models-out"))
    parser.add_argument(
        "--work", type=Path, default=Path("/tmp/diffopt-models"), help="scenes and logs; safe to delete"
    )
    parser.add_argument("--scenes", type=int, default=80_000)
    parser.add_argument("--prompts", type=int, default=1000, help="held-out prompts in the evaluation")
    parser.add_argument("--batch", type=int, default=0, help="instead of the recipe's own, for a trial")
    parser.add_argument("--workers", type=int, default=12, help="processes that draw")
    parser.add_argument("--further", action="store_true", help="go on from the weights that --work holds")
    parser.add_argument("--deadline", type=float, default=0.0, help=argparse.SUPPRESS)
    parser.add_argument("--eager", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument(
        "--integrate", type=Path, metavar="DIR", help="write what DIR holds of --model into the package"
    )
    given = parser.parse_args()
    if given.deadline:
        try:
            train_one(
                given.model,
                given.work,
                given.deadline,
                given.device,
                prompts=given.prompts,
                batch=given.batch,
                recorded=not given.eager,
                further=given.further,
            )
        except NotRecorded as error:
            print(f"no CUDA graph ({error}); again, step by step", flush=True)
            os.execv(sys.executable, [sys.executable, "-m", "diffopt.bench.models.train", *sys.argv[1:], "--eager"])
        return
    names = list(RECIPES) if given.model == "all" else given.model.split(",")
    unknown = [name for name in names if name not in RECIPES]
    if unknown:
        parser.error(f"no model {unknown[0]}; there are {', '.join(RECIPES)}")
    if given.integrate is not None:
        unpack(given.integrate, names)
        return
    _train_all(names, given)


def _train_all(names: list[str], given: argparse.Namespace) -> None:
    deadline = time.time() + given.seconds
    given.work.mkdir(parents=True, exist_ok=True)
    given.out.mkdir(parents=True, exist_ok=True)
    running: dict[str, subprocess.Popen[bytes]] = {}

    def end(number: int, frame: FrameType | None) -> None:
        for process in running.values():
            process.terminate()

    signal.signal(signal.SIGTERM, end)
    needed = dict.fromkeys(POOLS[RECIPES[name].pool] for name in names)
    for pool in needed:
        started = time.time()
        drawn_in_parallel(pool.draw, given.scenes, pool.seed, given.workers).save(given.work / pool.name)
        print(f"drew {given.scenes} {pool.name} in {time.time() - started:.0f} s", flush=True)
        for name in names:
            if RECIPES[name].pool == pool.name:
                running[name] = _start(name, given, deadline)
    packed = time.time()
    while any(process.poll() is None for process in running.values()):
        time.sleep(0.5)
        if time.time() - packed > _PACK_S:
            pack(given.work, given.out)
            packed = time.time()
        if time.time() > deadline + _GRACE_S:
            for process in running.values():
                process.kill()
    pack(given.work, given.out)
    for name, process in running.items():
        log = given.work / f"{name}.log"
        lines = log.read_text().splitlines() if log.exists() else []
        print(f"{name}: exit {process.returncode}; {lines[-1] if lines else 'no log'}", flush=True)


def _start(name: str, given: argparse.Namespace, deadline: float) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "diffopt.bench.models.train", "--model", name, "--deadline", str(deadline)]
    command += ["--device", given.device, "--work", str(given.work)]
    command += ["--prompts", str(given.prompts), "--batch", str(given.batch)]
    command += ["--further"] * given.further
    with (given.work / f"{name}.out").open("wb") as file:
        return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)


if __name__ == "__main__":
    main()
