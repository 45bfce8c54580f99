"""A background load that comes and goes: what a shared machine does to a measurement, made on purpose."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

BURSTS = """
import random, sys, time
rng = random.Random(int(sys.argv[1]))
while True:
    until = time.monotonic() + rng.uniform(0.2, 4.0)
    block = bytearray(8 << 20)
    while time.monotonic() < until:
        block[:: rng.choice((1, 64, 4096))].count(1)
    time.sleep(rng.uniform(0.2, 4.0))
"""


@contextlib.contextmanager
def background_load(processes: int, *, seed: int = 0) -> Iterator[None]:
    """Keep processes computing in bursts of 0.2 to 4 s with pauses of as long, meanwhile."""
    started = [subprocess.Popen([sys.executable, "-c", BURSTS, str(seed + index)]) for index in range(processes)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()
