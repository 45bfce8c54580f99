"""`diffopt bench`, as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffopt.bench.suite.results import read_results
from diffopt.cli import main


def test_tasks_are_printed_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "tasks", "--count", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["tasks"]
    assert [task["level"] for task in found] == [1, 2, 3, 4, 5]
    assert {"id", "prompt", "specification", "expected", "reference"} <= set(found[0])


def test_words_with_an_open_target_say_what_sets_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "tasks", "--count", "1", "--levels", "4"]) == 0
    printed = capsys.readouterr()
    assert "target: " in printed.out
    assert "diffopt bench search" in printed.err
    assert main(["bench", "tasks", "--count", "1", "--levels", "1"]) == 0
    assert not capsys.readouterr().err


def test_scripts_of_a_folder_are_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "L1-039.py").write_text("import torch\n")
    out = tmp_path / "r.json"
    arguments = ["bench", "run", "--answers", str(tmp_path), "--arm", "mine", "--ids", "L1-039,L1-029", "--static"]
    assert main([*arguments, "-o", str(out)]) == 1
    said = capsys.readouterr().out
    assert "level 1: 1 failed, 1 no answer; static gate 0 of 1 answers" in said
    assert read_results(out).arm == "mine"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["tasks", "--ids", "L9"], "diffopt: --ids: no task is called 'L9'; they are called as L1-001"),
        (["run", "--arm", "gpt"], "diffopt: --arm: no arm 'gpt'; there is rules, direct, or give --answers"),
        (["run", "--levels", "0"], "diffopt: --levels: '0' are no levels; levels are 1 to 5; write 1,2"),
        (["report", "nowhere.json"], "diffopt: nowhere.json: cannot be read: No such file or directory"),
        (["submit", "nowhere.json"], "diffopt: nowhere.json: cannot be read: No such file or directory"),
    ],
)
def test_bad_input_gets_one_line(arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *arguments]) == 2
    assert capsys.readouterr().err.strip() == line


@pytest.mark.slow
def test_a_task_is_measured_once_reported_and_entered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, store = tmp_path / "r.json.gz", tmp_path / "r.json.gz.store"
    run = ["bench", "run", "--ids", "L1-039", "--prompts", "4", "--threads", "1", "-o", str(out)]
    assert main(run) == 0
    kept = store.read_bytes()
    assert main(run) == 0
    assert store.read_bytes() == kept
    assert read_results(out).verdicts["L1-039"]["status"] == "passed"
    assert main(["bench", "report", str(out)]) == 0
    assert "1 were measured, and 1 of those pass all gates" in capsys.readouterr().out
    board = tmp_path / "board.json"
    assert main(["bench", "submit", str(out), "--sample", "0", "--board", str(board)]) == 0
    assert "accepted, measured again: nothing" in capsys.readouterr().out
    assert json.loads(board.read_text())["entries"][0]["arm"] == "rules"
