from __future__ import annotations

import json
import multiprocessing
import time
from pathlib import Path

import pytest

from diffopt.bench.outcome import Failed, outcome_from_json
from diffopt.ir.errors import DiffoptError
from diffopt.search.executors.device_lock import device_lock
from diffopt.search.executors.supervisor import Supervisor, made
from diffopt.search.study.pretend import payload
from diffopt.search.study.problem import candidate
from diffopt.search.study.synthetic import Synthetic

FACTORY = "diffopt.search.study.pretend:measure"


def test_it_answers_in_text_what_measuring_gives(tmp_path: Path) -> None:
    problem = Synthetic(seed=2)
    asked = candidate(problem, problem.parse("fuse,layout").passes, 1)
    supervisor = Supervisor(FACTORY, json.dumps({"seed": 2, "seconds": 0}), str(tmp_path), "cpu")
    answer = supervisor.measure(json.dumps(payload(asked)))
    assert outcome_from_json(json.loads(answer)) == problem.evaluate(asked)


def test_a_defect_becomes_an_outcome_with_its_traceback(tmp_path: Path) -> None:
    supervisor = Supervisor(FACTORY, json.dumps({"seed": 2, "seconds": 0}), str(tmp_path), "cpu")
    outcome = outcome_from_json(json.loads(supervisor.measure("{}")))
    assert isinstance(outcome, Failed)
    assert outcome.kind == "internal"
    assert "KeyError" in outcome.log


def test_what_the_user_has_to_mend_is_said_and_no_outcome(tmp_path: Path) -> None:
    supervisor = Supervisor("diffopt.nothing:here", "{}", str(tmp_path), "cpu")
    assert "nothing" in json.loads(supervisor.measure("{}"))["error"]
    with pytest.raises(DiffoptError, match="to measure with"):
        made("diffopt.search:nothing", {})


def _hold(folder: Path, log: Path) -> None:
    with device_lock("cuda:0", folder):
        with log.open("a") as lines:
            lines.write("in\n")
        time.sleep(0.05)
        with log.open("a") as lines:
            lines.write("out\n")


def test_a_device_is_held_by_one_process_at_a_time(tmp_path: Path) -> None:
    log = tmp_path / "log"
    processes = [multiprocessing.get_context("fork").Process(target=_hold, args=(tmp_path, log)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert log.read_text().split() == ["in", "out"] * 3
