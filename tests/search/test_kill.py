from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from diffopt.search.engine import Engine, Settings
from diffopt.search.store import MEMORY, Store
from diffopt.search.study.synthetic import Experts, Synthetic

COUNT, KILLS = 80, 50
SETTINGS = Settings(offspring=6, rounds=1)

LOOP = """
import os, sys
from diffopt.search import Engine, Settings, Store
from diffopt.search.study.synthetic import Experts, Synthetic

problem = Synthetic(seed=7)
print("ready", flush=True)
# Every line that is read starts the search anew in a process of its own, as a user would after a crash.
for _ in sys.stdin:
    child = os.fork()
    if not child:
        with Store(sys.argv[1]) as store:
            engine = Engine(problem.module, store, run_id="r", seed=3, proposers=[Experts(problem)], space=problem,
                            settings=Settings(offspring=6, rounds=1))
            while len(engine.trials()) < int(sys.argv[2]):
                asked = engine.ask()
                with open(sys.argv[1] + ".log", "a") as log:
                    log.write(f"{asked.id} {asked.key}\\n")
                engine.tell(asked, problem.evaluate(asked))
        os._exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.mark.slow
def test_killed_at_fifty_random_moments_it_finds_what_an_unbroken_run_finds(tmp_path: Path) -> None:
    problem = Synthetic(seed=7)
    with Store(MEMORY) as store:
        engine = Engine(
            problem.module, store, run_id="r", seed=3, proposers=[Experts(problem)], space=problem, settings=SETTINGS
        )
        started = time.monotonic()
        for _ in range(COUNT):
            asked = engine.ask()
            assert asked is not None
            engine.tell(asked, problem.evaluate(asked))
        usual = (time.monotonic() - started) / COUNT
        whole, front = engine.trials(), engine.front()
    loop = subprocess.Popen(
        [sys.executable, "-c", LOOP, str(tmp_path / "s"), str(COUNT)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    assert loop.stdin is not None
    assert loop.stdout is not None
    assert loop.stdout.readline() == "ready\n"
    rng, kills, finished = np.random.default_rng(11), 0, False
    while not finished:
        loop.stdin.write("\n")
        loop.stdin.flush()
        child = int(loop.stdout.readline())
        if kills < KILLS:
            # From while the store is opened to a few measurements later.
            time.sleep(float(rng.uniform(0, 2.2 * usual)))
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            kills += 1
        finished = int(loop.stdout.readline()) == 0
    loop.stdin.close()
    loop.wait()
    loop.stdout.close()
    with Store(tmp_path / "s") as store:
        engine = Engine(
            problem.module, store, run_id="r", seed=3, proposers=[Experts(problem)], space=problem, settings=SETTINGS
        )
        assert engine.trials() == whole
        assert engine.front() == front
        assert store.pending("r") == ()
    started_with = [line.split() for line in (tmp_path / "s.log").read_text().splitlines()]
    # What was in flight when it was killed is measured again under its own id; nothing that was told is.
    assert list(dict.fromkeys(number for number, _ in started_with)) == [str(n) for n in range(1, COUNT + 1)]
    assert len({key for _, key in started_with}) == COUNT
    assert kills == KILLS
