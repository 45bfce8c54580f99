"""DiffBench's tasks answered with scripts of a language model, a scripted endpoint standing for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from diffopt.bench.suite.arms.rules import answer
from diffopt.bench.suite.results import read_results
from diffopt.bench.suite.running import Choice, chosen
from diffopt.bench.suite.task import Task
from diffopt.cli import main
from diffopt.diffbench.direct_arm import functions
from tests.llm.conftest import ScriptedEndpoint, endpoint

__all__ = ["endpoint"]

KEY = "sk-planted-for-the-arm-0123"


@pytest.fixture
def task() -> Task:
    """A task that names one method."""
    return next(task for task in chosen(Choice(levels=(2,))) if task.method("deepcache") and task.family == "sd15")


def run(endpoint: ScriptedEndpoint, task: Task, folder: Path, *more: str) -> int:
    given = ["bench", "run", "--ids", task.id, "--arm", "direct", "--static", "-o", str(folder / "found.json.gz")]
    return main([*given, "--llm-base-url", endpoint.url, "--llm-model", "scripted", "--json", *more])


def verdict(task: Task, printed: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(printed)["verdicts"][task.id]
    return found


def test_a_script_is_mended_by_the_static_gate_and_played_again(
    endpoint: ScriptedEndpoint, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    good = answer(task).code
    endpoint.says({"reason": "no method yet", "code": task.reference})
    endpoint.says({"reason": "as asked", "code": good})
    assert run(endpoint, task, tmp_path) == 0
    found = verdict(task, capsys.readouterr().out)
    assert (found["status"], found["static"]["passed"]) == ("not measured", True)
    asked = [json.dumps(seen.body) for seen in endpoint.seen]
    assert "follow_step_plan" in asked[0]
    assert "deepcache is not applied" in asked[1], "what the gate says goes back to the model"
    results = read_results(tmp_path / "found.json.gz")
    assert results.arm == "direct"
    assert good in results.programs.values()
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]

    transcript = tmp_path / "found.json.gz.llm.jsonl"
    again = tmp_path / "again"
    again.mkdir()
    assert run(endpoint, task, again, "--llm-replay", str(transcript)) == 0
    assert len(endpoint.seen) == 2, "a replay asks nobody"
    assert read_results(again / "found.json.gz").programs == results.programs


def test_what_never_passes_is_handed_in_as_it_is_and_fails(
    endpoint: ScriptedEndpoint, task: Task, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(10):
        endpoint.says({"reason": "again", "code": task.reference})
    assert run(endpoint, task, tmp_path) == 1
    found = verdict(task, capsys.readouterr().out)
    assert (found["status"], found["reasons"][-1]) == ("failed", "deepcache is not applied")
    assert len(endpoint.seen) == 10, "the same mistake twice ends each of five starts"


def test_a_refusal_is_no_answer_and_says_why(
    endpoint: ScriptedEndpoint, task: Task, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint.says("", refusal="I would rather not")
    assert run(endpoint, task, tmp_path) == 1
    found = verdict(task, capsys.readouterr().out)
    assert found["status"] == "no answer"
    assert "I would rather not" in found["reasons"][0]


def test_the_model_is_told_the_functions_that_the_gate_can_read() -> None:
    told = functions()
    assert [name for name in ("follow_step_plan(", "merge_tokens(", "half_precision(") if name not in told] == []
