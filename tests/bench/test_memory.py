from __future__ import annotations

import os
import subprocess
import sys

from diffopt.bench import memory


def test_reads_this_process() -> None:
    assert 1 << 20 < memory.resident_bytes(os.getpid()) <= memory.peak_bytes(os.getpid())
    assert memory.available_bytes() > 0


def test_a_process_that_is_gone_has_no_memory() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
        assert memory.resident_bytes(child.pid) == memory.peak_bytes(child.pid) == 0


def test_descendants_are_found_through_all_generations() -> None:
    assert memory.descendants(2, {1: 0, 2: 1, 3: 2, 4: 3, 5: 1}) == {2, 3, 4}
    assert memory.descendants(9, {1: 0, 2: 9}) == set()
    assert os.getpid() in memory.descendants(os.getppid(), memory.parents())


def test_the_watch_keeps_the_peak_and_looks_for_new_members_when_the_last_look_is_old() -> None:
    now, looks = [0.0], []

    def members() -> list[int]:
        looks.append(now[0])
        return [os.getpid()]

    watch = memory.MemoryWatch(os.getpid(), members, clock=lambda: now[0])
    for now[0] in (0.0, 0.5, 0.9, 1.1, 1.5):
        assert watch.sample() == watch.now_bytes > 0
    assert looks == [1.1]
    watch.look()
    now[0] = 2.4
    watch.sample()
    assert looks == [1.1, 1.5]
    assert watch.peak_bytes >= watch.now_bytes
