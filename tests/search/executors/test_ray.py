from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from diffopt.ir.errors import DiffoptError
from diffopt.search.executors.ray import RayExecutor
from diffopt.search.store import Store
from diffopt.search.study.pretend import payload
from diffopt.search.study.synthetic import Synthetic

DRIVER = """
import sys
from pathlib import Path
from diffopt.search import Budget, Engine, Settings, Store, search
from diffopt.search.executors.ray import RayExecutor
from diffopt.search.study.pretend import payload
from diffopt.search.study.synthetic import Synthetic

folder, problem = Path(sys.argv[1]), Synthetic(seed=1)
settings = {"seed": 1, "seconds": 0.3, "log": str(folder), "kills": [2, 5]}
with Store(folder / "s") as store, RayExecutor(
    "diffopt.search.study.pretend:measure", settings, payload,
    workers=4, devices=("a", "b", "c", "d"), locks=folder,
) as executor:
    engine = Engine(problem.module, store, run_id="r", space=problem, settings=Settings(offspring=4, rounds=1))
    assert executor.hosts()[0].endswith(" (4)")
    print("ready", flush=True)
    print(search(engine, executor, Budget(candidates=int(sys.argv[2]), early=False)), flush=True)
"""


def driver(folder: Path, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", DRIVER, str(folder), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_killed_workers_and_a_killed_driver_lose_nothing(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    first = driver(tmp_path, 30)
    assert first.stdout is not None
    assert first.stdout.readline() == "ready\n"
    measured = tmp_path / "measured"
    deadline = time.monotonic() + 150
    # Two workers die on the way; then, with candidates in flight, the driver does.
    while not measured.exists() or len(measured.read_text().splitlines()) < 9:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    first.kill()
    first.communicate()
    with Store(tmp_path / "s") as store:
        told, asked = len(store.trials("r")), len(store.candidates("r"))
    assert told < asked
    second = driver(tmp_path, 16)
    said, _ = second.communicate(timeout=200)
    assert said.splitlines() == ["ready", "16 candidates measured"]
    problem = Synthetic(seed=1)
    with Store(tmp_path / "s") as store:
        trials = store.trials("r")
        assert store.pending("r") == ()
    assert sorted(t.candidate.id for t in trials) == list(range(1, 17))
    assert len({t.candidate.key for t in trials}) == 16
    assert all(t.outcome == problem.evaluate(t.candidate) for t in trials)
    # Only what was in flight when a worker or the driver died was measured again.
    again = [int(line) for line in measured.read_text().splitlines()]
    assert len(again) <= 16 + 2 + (asked - told)


def test_without_a_cluster_it_says_so_in_one_line() -> None:
    pytest.importorskip("ray")
    with pytest.raises(DiffoptError, match="no Ray cluster") as raised:
        RayExecutor("a:b", {}, payload, address="127.0.0.1:1")
    assert "\n" not in str(raised.value)
