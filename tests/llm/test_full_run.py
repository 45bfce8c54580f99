"""A whole run from the command line against the loopback server: every kind of answer takes the documented path."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from diffopt.artifact import Artifact
from diffopt.bench import memory
from diffopt.cli import main
from diffopt.llm.generated import GeneratedPass
from diffopt.llm.library import Library
from diffopt.llm.transcript import Transcript

if TYPE_CHECKING:
    from tests.llm.conftest import ScriptedEndpoint

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

KEY = "sk-planted-4f1c9a7be2d84c55"
PROMPTS = ["a cat", "a red house", "two boats at sea", "a green tree", "snow", "a street at night"]
WINDOW = {"name": "guidance-window", "options": {"stop": 0.6}}
STEPS = {"name": "reduce-steps", "options": {"steps": 3, "solver": "deis"}}
INJECTED = {"name": "x\"} ; import os; os.system('touch owned')"}


def plan(*passes: object) -> dict[str, object]:
    return {"reason": "fewer calls", "passes": list(passes)}


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS) + "\n")
    return tmp_path


def command(endpoint: ScriptedEndpoint, model: Path, *more: str) -> list[str]:
    return [
        "compile", str(model), "-o", "out", "--tier", "traded", "--budget", "1", "--prompts", "prompts.txt",
        "--set", "steps=6", "--set", "guidance=3", "--no-controls", "--planner", "llm", "--json",
        "--llm-base-url", endpoint.url, "--llm-model", "scripted", "--llm-price", "2,10",
        "--llm-calls", "9", "--llm-passes", "3", *more,
    ]  # fmt: skip


def script(endpoint: ScriptedEndpoint, written: Callable[..., GeneratedPass]) -> None:
    endpoint.fails(429, "slow down", Retry_After="0.05")
    endpoint.fails(500, "oops")
    endpoint.drops()
    endpoint.fails(400, "response_format json_schema is not supported here")  # call 1, and the ladder goes down
    endpoint.says('{"plans": [')  # call 2, malformed
    hints = [{"name": "reduce-steps", "weight": 3, "ranges": [{"option": "steps", "low": 2, "high": 4}]}]
    endpoint.says({"plans": [plan(STEPS), plan({**WINDOW}, STEPS, STEPS), plan(INJECTED)], "hints": hints})  # call 3
    endpoint.says("", refusal="I will not mend that")  # call 4
    endpoint.says('{"name": "cut', finish="length")  # call 5: the first new pass
    endpoint.says(written("wrong-api").model_dump())  # call 6: the second
    endpoint.script[-1] = dataclasses.replace(endpoint.script[-1], drip_s=0.02)
    endpoint.says(written("right").model_dump())  # call 7: mended
    endpoint.says("I cannot", usage=None)  # call 8: the third, no JSON; call 9 is its repair
    endpoint.says("still not")


def test_a_full_run_takes_every_documented_path_and_keeps_the_key_to_itself(
    endpoint: ScriptedEndpoint, tiny_directory: Path, places: Path, written: Callable[..., GeneratedPass],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    script(endpoint, written)
    looked: list[int] = []
    leaked: list[int] = []

    def look_at_children() -> None:
        for child in memory.descendants(os.getpid(), memory.parents()) - {os.getpid()}:
            with contextlib.suppress(OSError):
                looked.append(child)
                leaked.extend([child] if KEY.encode() in Path(f"/proc/{child}/environ").read_bytes() else [])

    endpoint.asked = look_at_children
    code = main(command(endpoint, tiny_directory))
    said = capsys.readouterr()
    assert code == 0, said.err
    artifact = Artifact.open(places / "out")
    agent: dict[str, Any] = artifact.manifest["agent"]

    # Each answer took its path.
    assert [problem["status"] for problem in agent["problems"]] == ["refused"]
    assert {entry["plan"].split("{")[0][:12]: bool(entry["why"]) for entry in agent["rejected"]} == {
        "guidance-win": True,
        'x"} ; import': True,
    }
    assert {entry["name"]: (entry["status"], entry["level"]) for entry in agent["passes"]} == {
        "wrong-api": ("failed", 4),
        "no-history": ("candidate", 4),
    }
    assert not (places / "owned").exists()
    transcript = Transcript(places / "out.run" / "llm.jsonl", mode="replay")
    assert [entry.answer.attempts for entry in transcript.entries] == [4, 1, 1, 1, 1, 1, 1, 1, 1]
    assert [entry.answer.status for entry in transcript.entries] == [400] + [200] * 8

    # Tokens and money add up: seven answers of 100 + 20, one without figures, at its reserve.
    stated = 7
    assert agent["calls"] == 9
    rest = agent["prompt_tokens"] - stated * 100
    assert rest > 0
    assert agent["answer_tokens"] == stated * 20 + 8192
    assert agent["money"] == pytest.approx((agent["prompt_tokens"] * 2 + agent["answer_tokens"] * 10) / 1e6)

    # The hints were kept, and what was learned stands where the next run looks.
    assert json.loads((places / "out.run" / "hints.json").read_text())[0]["name"] == "reduce-steps"
    assert "reduce-steps" in (places / "data" / "diffopt" / "lessons.jsonl").read_text()

    # The key went to the endpoint and nowhere else.
    assert endpoint.seen[0].headers["authorization"] == f"Bearer {KEY}"
    assert looked
    assert leaked == []
    assert KEY not in said.out + said.err
    files = [path for path in places.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []

    # Going on with the run asks nobody: everything is in the transcript and the store, byte for byte.
    before, asked = (places / "out.run" / "llm.jsonl").read_bytes(), len(endpoint.seen)
    assert main([*command(endpoint, tiny_directory), "--resume", "--force"]) == 0
    assert len(endpoint.seen) == asked
    assert (places / "out.run" / "llm.jsonl").read_bytes() == before
    assert Artifact.open(places / "out").manifest["agent"]["passes"] == agent["passes"]
    capsys.readouterr()

    # The candidate is promoted, shown, and used by its name; what failed cannot be.
    assert main(["passes", "promote", "out.run", "wrong-api"]) == 2
    assert main(["passes", "promote", "out.run", "no-history"]) == 0
    assert [entry.status for _, entry in Library(places / "data" / "diffopt" / "passes")] == ["promoted"]
    assert main(["passes"]) == 0
    assert "no-history" in capsys.readouterr().out
    assert main(["emit", str(tiny_directory), "--set", "steps=6", "--passes", "reduce-steps{steps=3},no-history"]) == 0
    emitted = capsys.readouterr().out
    assert "    pipe.unet.forward = torch.inference_mode()(pipe.unet.forward)\n    call_defaults(pipe" in emitted
