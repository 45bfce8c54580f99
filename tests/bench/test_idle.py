from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from diffopt.bench.idle import IdleWatch
from diffopt.bench.resident import Images


def wait_until(used: float) -> None:
    start = sum(os.times()[:4])
    while sum(os.times()[:4]) - start < used:
        sum(range(1000))


@pytest.mark.parametrize(("busy", "caught"), [(0.0, False), (0.3, True)])
def test_work_done_while_another_is_timed_is_seen(busy: float, caught: bool) -> None:
    watch = IdleWatch(lambda: [os.getpid()], lambda: None)

    def call(prompts: list[str], seeds: list[int]) -> tuple[float, Images]:
        wait_until(busy)
        return 0.5, np.zeros((1, 1, 1, 3), np.float32)

    watch.during(call)([], [])
    assert bool(watch.fault()) == caught


def test_processes_that_have_ended_count_with_the_one_that_reaps_them() -> None:
    watch = IdleWatch(list, os.getpid)

    def call(prompts: list[str], seeds: list[int]) -> tuple[float, Images]:
        code = "import time\nwhile time.process_time() < 0.3: pass"
        subprocess.run([sys.executable, "-c", code], check=True)
        return 0.5, np.zeros((1, 1, 1, 3), np.float32)

    watch.during(call)([], [])
    assert "while the baseline was timed" in (watch.fault() or "")
