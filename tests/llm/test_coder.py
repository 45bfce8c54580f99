"""The whole path of a new pass: asked for, checked, confined, measured, mended, kept; measuring is scripted here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from xdsl.dialects.builtin import ModuleOp

from diffopt.bench.outcome import Failed, Fidelity, Latency, Measured, Memory, Outcome
from diffopt.ir.emit_pipeline import emit_pipeline
from diffopt.llm.client import Client
from diffopt.llm.coder import Coder, Task
from diffopt.llm.debugger import Effort
from diffopt.llm.generated import GeneratedPass
from diffopt.llm.library import Library
from diffopt.llm.transcript import Transcript
from diffopt.passes.pipeline import Trace

if TYPE_CHECKING:
    from tests.llm.conftest import ScriptedEndpoint

Written = Callable[..., GeneratedPass]
FASTER = Measured(
    Latency(1.1, 1.05, 1.15, 5, (1.0,) * 5, (0.9,) * 5),
    Fidelity(90.0, 80.0, 70.0, 1.0, None, None, None, None, 8, ()),
    Memory(1, 1), 0.0, 0.0, 0.0, (), "exact",
)  # fmt: skip
BLURRED = Measured(
    FASTER.latency, Fidelity(18.0, 15.0, 12.0, 0.5, None, None, None, None, 8, ()), Memory(1, 1), 0.0, 0.0, 0.0, (),
    "changed",
)  # fmt: skip


@pytest.fixture
def task(standard_module: ModuleOp) -> Task:
    return Task(Trace(), emit_pipeline(standard_module))


def coder_for(
    endpoint: ScriptedEndpoint, folder: Path, outcomes: list[Outcome | None], effort: Effort | None = None
) -> tuple[Coder, list[str]]:
    asked: list[str] = []

    def measure(trace: Trace, origin: str) -> Outcome | None:
        asked.append(f"{origin} {trace}")
        return outcomes.pop(0)

    client = Client(endpoint.url, "scripted", "key-of-eight", max_retries=0)
    made = Coder(
        client, Transcript(folder / "llm.jsonl"), Library(folder / "passes"), measure,
        goal="fastest", device={"device": "cpu"}, effort=effort,
    )  # fmt: skip
    return made, asked


def test_the_right_pass_is_measured_and_kept_as_a_candidate(
    endpoint: ScriptedEndpoint, tmp_path: Path, task: Task, written: Written
) -> None:
    right = written("right")
    endpoint.says(right.model_dump())
    coder, asked = coder_for(endpoint, tmp_path, [FASTER])
    found = coder.write(task)
    assert found.piece == right
    assert asked == [f'coder:no-history rewrite{{code="{right.id}"}}']
    ((_, entry),) = coder.library
    assert (entry.status, entry.why, entry.call, entry.level) == ("candidate", "", "call-1", 4)
    assert entry.measured["ratio"] == [1.1, 1.05, 1.15]
    system, user = (message["content"] for message in endpoint.seen[0].body["messages"])
    assert "transform(source: str)" in system
    assert "call_defaults(pipe" in user
    assert "- reduce-steps:" in user


def test_a_wrong_call_is_mended_from_its_traceback(
    endpoint: ScriptedEndpoint, tmp_path: Path, task: Task, written: Written
) -> None:
    endpoint.says(written("wrong-api").model_dump())
    endpoint.says(written("right").model_dump())
    trouble = "AttributeError: 'UNet2DConditionModel' object has no attribute 'enable_turbo_mode'"
    coder, asked = coder_for(endpoint, tmp_path, [Failed("build", trouble, "Traceback: line 12"), FASTER])
    assert coder.write(task).piece == written("right")
    assert len(asked) == 2
    last = endpoint.seen[1].body["messages"]
    assert [message["role"] for message in last] == ["system", "user", "assistant", "user"]
    assert "enable_turbo_mode" in last[-1]["content"]
    assert "Traceback: line 12" in last[-1]["content"]
    assert {entry.name: entry.status for _, entry in coder.library} == {
        "wrong-api": "failed",
        "no-history": "candidate",
    }


@pytest.mark.parametrize(
    ("name", "status", "measured"),
    [
        ("non-deterministic", "laws", []),
        ("malicious", "static", []),
        ("malicious-by-the-back-door", "sandbox", []),
        ("malicious-in-the-runner", "laws", []),
        ("cheating", "weaker", [BLURRED]),
    ],
)
def test_other_passes_end_with_their_status_and_are_not_returned(
    endpoint: ScriptedEndpoint, tmp_path: Path, task: Task, written: Written, name: str, status: str,
    measured: list[Outcome | None],
) -> None:  # fmt: skip
    endpoint.says(written(name).model_dump())
    coder, asked = coder_for(endpoint, tmp_path, list(measured), Effort(fixes=0, restarts=1))
    found = coder.write(task)
    assert found.piece is None
    assert [attempt.problem == "" for attempt in found.attempts] == [False]
    assert [(entry.name, entry.status) for _, entry in coder.library] == [(name, status)]
    assert len(asked) == len(measured)


def test_a_pass_of_the_catalogue_is_not_written_again(
    endpoint: ScriptedEndpoint, tmp_path: Path, task: Task, written: Written
) -> None:
    endpoint.says(written("right", name="fuse-qkv").model_dump())
    coder, asked = coder_for(endpoint, tmp_path, [], Effort(0, 1))
    assert "a pass of the catalogue already" in coder.write(task).why
    assert asked == []


def test_a_pass_that_weakens_no_more_than_what_it_stands_on_is_held_to_its_own_word(
    endpoint: ScriptedEndpoint, tmp_path: Path, task: Task, written: Written
) -> None:
    endpoint.says(written("right").model_dump())
    coder, _ = coder_for(endpoint, tmp_path, [BLURRED])
    on_top = Task(Trace.parse("reduce-steps{steps=12}"), task.target, "changed")
    found = coder.write(on_top)
    assert found.piece is not None
    assert coder.library.named("no-history")[1].measured["trace"] == str(
        Trace.parse(f'reduce-steps{{steps=12}},rewrite{{code="{found.piece.id}"}}')
    )


def test_a_model_that_writes_nothing_is_said_to(endpoint: ScriptedEndpoint, tmp_path: Path, task: Task) -> None:
    endpoint.says("", refusal="I write no code")
    coder, _ = coder_for(endpoint, tmp_path, [])
    found = coder.write(task)
    assert (found.piece, found.why) == (None, "no piece was written")
    assert [(p.status, p.message) for p in coder.problems] == [("refused", "the model refuses: I write no code")]
    assert len(endpoint.seen) == 1
