"""`diffopt direct` for real: scripts a model writes run confined, are judged by the gates, and what they see stays here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffopt import direct_run
from diffopt.cli import main
from diffopt.comparison import side
from diffopt.ir.errors import DiffoptError
from diffopt.llm.template import without_folder
from tests.llm.conftest import ScriptedEndpoint, endpoint

__all__ = ["endpoint"]

KEY = "sk-planted-for-direct-mode-0123"
PRIVATE = "the diary of the user, 17 pages"
CALL = "    pipe.unet.to(memory_format=torch.channels_last)\n    call_defaults(pipe"


@pytest.fixture
def reference(tiny_directory: Path) -> str:
    """What the model is shown and starts from."""
    return without_folder(side(str(tiny_directory), {"steps": "4", "guidance": "3"}).program.pipeline_py)


def command(endpoint: ScriptedEndpoint, model: Path, folder: Path, *more: str) -> list[str]:
    (folder / "prompts.txt").write_text("a cat\na red house\ntwo boats at sea\na green tree\n")
    given = ["direct", str(model), "--set", "steps=4", "--set", "guidance=3", "-o", str(folder / "fast.py")]
    given += ["--task", "Lay the weights out for the processor.", "--require", "channels_last", "--min-speedup", "0"]
    given += ["--llm-base-url", endpoint.url, "--llm-model", "scripted", "--prompts", str(folder / "prompts.txt")]
    return [*given, "--json", *more]


@pytest.mark.slow
def test_a_script_is_written_confined_judged_and_played_again(
    endpoint: ScriptedEndpoint, tiny_directory: Path, tmp_path: Path, reference: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(direct_run, "SEARCH_PAIRS", (2, 2))
    monkeypatch.setattr(direct_run, "FINAL_PAIRS", (2, 2))
    monkeypatch.setattr(direct_run, "REST_S", 0.0)
    secret = tmp_path / "diary.txt"
    secret.write_text(PRIVATE)
    good = reference.replace("    call_defaults(pipe", CALL)
    curious = good.replace(CALL, f"    raise ValueError(open({str(secret)!r}).read())\n{CALL}")
    endpoint.says({"reason": "nothing done", "code": reference})
    endpoint.says({"reason": "let me see", "code": curious})
    endpoint.says({"reason": "a better layout", "code": good})

    assert main(command(endpoint, tiny_directory, tmp_path)) == 0
    verdict = json.loads(capsys.readouterr().out)
    assert (tmp_path / "fast.py").read_text() == good.replace('MODEL = "tiny"', f'MODEL = "{tiny_directory}"')
    problems = [attempt["problem"] for attempt in verdict["attempts"]]
    assert problems[0] == "gate static: it lacks channels_last"
    assert problems[1].startswith("gate absolute: it does not run: build: PermissionError")
    assert problems[2] == ""
    asked = "\n".join(str(seen.body) for seen in endpoint.seen)
    assert "PermissionError" in asked
    assert str(tiny_directory) not in asked, "where the model lies is not told"
    assert PRIVATE not in asked, "what a script reads here may not reach the model through its errors"
    assert (verdict["passed"], verdict["sandbox"]["level"], verdict["llm"]["calls"]) == (True, 3, 3)
    assert verdict["heldout"]["status"] == "measured"
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in written if KEY.encode() in path.read_bytes()]

    # Again, from the transcript and the outcomes alone: the same verdict, nothing asked, nothing measured.
    endpoint.close()
    monkeypatch.delenv("OPENAI_API_KEY")
    transcript = str(tmp_path / "fast.run" / "llm.jsonl")
    assert main(command(endpoint, tiny_directory, tmp_path, "--resume", "--llm-replay", transcript)) == 0
    again = json.loads(capsys.readouterr().out)
    assert {**again, "self_test": None} == {**verdict, "self_test": None}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--require", "a b"], "--require: 'a b' is nothing a script can be asked to hold"),
        (["--task", " "], "--task: there is no task"),
        (["--budget", "0"], "--budget: must be at least 1"),
        (["--min-speedup", "-1"], "--min-speedup: must be a positive number, not -1"),
        (["--llm-passes", "2"], "--llm-passes: direct mode writes scripts, no passes"),
        (["-o", "fast.txt"], "fast.txt: must end in .py"),
        (["--resume"], "fast.run: there is no run to resume"),
        (["--reads", "/nowhere/at/all"], "/nowhere/at/all: is not there"),
    ],
)
def test_bad_input_is_one_clear_line(
    endpoint: ScriptedEndpoint, tiny_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    more: list[str], said: str,
) -> None:  # fmt: skip
    assert main(command(endpoint, tiny_directory, tmp_path, *more)) == 2
    line = capsys.readouterr().err.strip()
    assert said in line
    assert "\n" not in line
    assert not endpoint.seen


def test_nothing_a_model_wrote_runs_where_the_kernel_cannot_confine_it() -> None:
    with pytest.raises(DiffoptError, match="nothing that a model wrote is run: level 1, no files, network"):
        direct_run.require_level(1, 3)
    direct_run.require_level(3, 3)
