"""What a generated pass says of itself is checked on files it has not seen, and each kind of wrong pass is found."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.emit_pipeline import emit_pipeline
from diffopt.llm.generated import GeneratedPass
from diffopt.llm.laws import check
from diffopt.llm.sandbox import Limits

Written = Callable[..., GeneratedPass]


@pytest.fixture(scope="module")
def target(standard_module: ModuleOp) -> str:
    return emit_pipeline(standard_module)


def test_the_right_pass_keeps_them(written: Written, target: str) -> None:
    verdict = check(written("right"), [target])
    assert verdict.broken == ()
    assert (verdict.stage, verdict.level) == ("kept", 4)


@pytest.mark.parametrize(
    ("name", "stage", "said"),
    [
        ("non-deterministic", "laws", "not deterministic"),
        ("cheating-openly", "laws", "the call's defaults (steps, guidance, size) are not a rewrite's to change"),
        ("malicious", "static", "os may not be imported"),
        ("malicious-by-the-back-door", "sandbox", "PermissionError"),
        ("malicious-in-the-runner", "laws", "open may not come into emitted code"),
    ],
)
def test_a_wrong_pass_is_refused_where_it_should_be(
    written: Written, target: str, name: str, stage: str, said: str
) -> None:
    pattern = "num_inference_steps" if name == "cheating-openly" else "call_defaults(pipe"
    verdict = check(written(name, pattern=pattern), [target])
    assert verdict.stage == stage, verdict
    assert said in " ".join(verdict.broken)
    assert (verdict.level is None) == (stage == "static")


def test_nothing_but_what_is_declared_may_change(written: Written, target: str) -> None:
    verdict = check(written("right", touches=["imports"]), [target])
    assert "it changes the load of the file and declares imports" in verdict.broken


def code(body: str) -> str:
    return f"def transform(source: str) -> str:\n    return {body}\n"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("source", "changes nothing"),
        ("source + '\\nX = 1\\n'", "changes a file without its pattern"),
        ("source.replace('call_defaults(pipe', 'call_defaults((pipe')", "not Python"),
        ("source.replace('def load(', 'def load(x=1, *, ') if 'x=1' not in source else source", "arguments it took"),
        ("source.replace('\\n    call_defaults(pipe', '\\n    pipe.vae.eval()\\n    call_defaults(pipe')", "doing it twice"),
        ("1", "must return a text"),
        ("source.replace('import torch', 'import torch\\nimport flash_attn') if 'flash' not in source else source",
         "flash_attn may not be imported"),
    ],
)  # fmt: skip
def test_each_law_is_said_when_it_is_broken(written: Written, target: str, body: str, said: str) -> None:
    verdict = check(written("right", code=code(body), touches=["load", "imports", "constants"]), [target])
    assert not verdict.ok
    assert said in " ".join(verdict.broken)


def test_a_pass_that_finds_no_file_to_change_is_told_so(written: Written, target: str) -> None:
    verdict = check(written("right", pattern="no such text"), [target])
    assert "no file to change holds its pattern 'no such text'" in verdict.broken


def test_no_line_is_run_below_the_level_asked_for(
    written: Written, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    verdict = check(written("right"), [target], Limits(level=5))
    assert (verdict.stage, verdict.level) == ("sandbox", 4)
    assert "no container" in verdict.broken[0]
