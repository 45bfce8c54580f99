"""Nothing is timed while another process builds or checks."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from diffopt.bench.gpu.turns import take_turns

WORKER = """
import json, pathlib, sys, time
work, name, building = pathlib.Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
time.sleep(building)
(work / f"{name}.built").touch()
while not (work / f"{name}.turn").exists():
    time.sleep(0.01)
(work / f"{name}.measured").write_text(json.dumps(sorted(path.name for path in work.glob("*.built"))))
"""


def worker(work: Path, name: str, building: float) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WORKER, str(work), name, str(building)])


def turns(work: Path, workers: dict[str, subprocess.Popen[bytes]], seconds: float) -> list[str]:
    now = time.time()
    return take_turns(work, workers, {"a": 0.5, "b": 0.5}, built_until=now + seconds, until=now + 9, spare_s=1)


def test_no_turn_begins_before_all_are_built(tmp_path: Path) -> None:
    workers = {"a": worker(tmp_path, "a", 0), "b": worker(tmp_path, "b", 0.5)}
    assert turns(tmp_path, workers, 8) == []
    assert '"b.built"' in (tmp_path / "a.measured").read_text()
    assert (tmp_path / "b.measured").exists()


def test_who_is_late_is_ended_before_the_first_turn(tmp_path: Path) -> None:
    workers = {"a": worker(tmp_path, "a", 0), "b": worker(tmp_path, "b", 60)}
    assert turns(tmp_path, workers, 1) == ["b"]
    assert workers["b"].returncode != 0
    assert (tmp_path / "a.measured").exists()
    assert not (tmp_path / "b.turn").exists()


def test_who_has_failed_has_no_turn(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", "raise SystemExit(1)"])
    gone.wait()
    assert turns(tmp_path, {"a": gone, "b": worker(tmp_path, "b", 0)}, 8) == []
    assert (tmp_path / "b.measured").exists()
