"""Emission into the user's script: laws over the corpus, and the patched scripts run against recording fakes."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Self

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.description import build_module
from diffopt.ir.emit_edits import Edit, apply_edits, emit_edits, unified_patch
from diffopt.ir.errors import DiffoptError
from diffopt.ir.source_script import describe_text
from diffopt.passes.pipeline import Trace, run

SCRIPTS = Path(__file__).parent / "scripts"
TRACES = (
    "reduce-steps{steps=3},quantize",
    "reduce-steps{steps=4},guidance-window{stop=0.5},cache-features{interval=2}",
    "export{backend=openvino}",
    "reduce-steps{steps=3},export{backend=openvino scope=pipeline}",
)


def read(path: Path) -> str:
    with path.open(encoding="utf-8", newline="") as file:
        return file.read()


def header(path: Path, key: str) -> str:
    found = re.search(rf"^# {key}: (.*?)\r?$", read(path), re.MULTILINE)
    return found[1] if found else ""


LIFTED = sorted(p for p in SCRIPTS.glob("*.py.txt") if header(p, "expect"))
EDITABLE = [p for p in LIFTED if not header(p, "emit")]


def lifted(text: str, path: Path) -> ModuleOp:
    """Lift a text; what is unknown keeps the default that stands in for it."""
    return build_module(replace(describe_text(text.removeprefix("\ufeff"), path), unknowns=()))


def optimized(text: str, path: Path, trace: str) -> ModuleOp:
    return changed(lifted(text, path), trace)


def changed(module: ModuleOp, trace: str) -> ModuleOp:
    """Apply the passes of a trace one after the other, leaving out those that refuse."""
    for part in Trace.parse(trace):
        after = run(Trace((part,)), module)
        module = after if isinstance(after, ModuleOp) else module
    return module


@cache
def lifted_file(path: Path) -> ModuleOp:
    return lifted(read(path), path)


@cache
def optimized_file(path: Path, trace: str) -> ModuleOp:
    """Return what a file's passes make of it; shared, so nobody may change it."""
    return changed(lifted_file(path), trace)


@cache
def edits_of(path: Path, trace: str) -> tuple[Edit, ...]:
    return emit_edits(optimized_file(path, trace), read(path), path=path)


def ids(path: Path) -> str:
    return path.name.partition(".")[0]


def outside(text: str, edits: tuple[Edit, ...]) -> list[str]:
    """Return what stands between the ranges of the edits."""
    ordered = sorted(edits, key=lambda e: (e.start, e.end))
    ends = [0, *(edit.end for edit in ordered)]
    return [text[end:start] for end, start in zip(ends, [*(e.start for e in ordered), len(text)], strict=True)]


def check_laws(text: str, path: Path, module: ModuleOp, edits: tuple[Edit, ...] | None = None) -> str:
    """Check what holds for every edit and return the patched text."""
    edits = emit_edits(module, text, path=path) if edits is None else edits
    after = apply_edits(text, edits)
    ast.parse(after.removeprefix("\ufeff"))
    position = 0
    for kept in outside(text, edits):
        position = after.index(kept, position) + len(kept)
    assert emit_edits(module, after, path=path) == ()
    return after


@pytest.mark.parametrize("path", LIFTED, ids=ids)
def test_no_passes_give_no_edits(path: Path) -> None:
    text = read(path)
    edits = emit_edits(lifted_file(path), text, path=path)
    assert edits == ()
    assert apply_edits(text, edits) == text
    assert unified_patch("script.py", text, text) == ""


@pytest.mark.parametrize("trace", TRACES)
@pytest.mark.parametrize("path", EDITABLE, ids=ids)
def test_patched_script_parses_and_patching_again_changes_nothing(path: Path, trace: str) -> None:
    after = check_laws(read(path), path, optimized_file(path, trace), edits_of(path, trace))
    assert "# diffopt: " in after


@pytest.mark.parametrize("path", EDITABLE, ids=ids)
def test_another_trace_on_a_patched_script_is_refused(path: Path) -> None:
    patched = apply_edits(read(path), edits_of(path, TRACES[0]))
    with pytest.raises(DiffoptError, match=r"carries a patch of diffopt already \(line \d+\)"):
        emit_edits(optimized_file(path, TRACES[1]), patched, path=path)


@pytest.mark.parametrize("path", EDITABLE, ids=ids)
def test_git_applies_the_patch_and_its_reverse(path: Path, tmp_path: Path) -> None:
    text = read(path)
    after = apply_edits(text, edits_of(path, TRACES[0]))
    script = tmp_path / "my script.py"
    script.write_bytes(text.encode())
    (tmp_path / "changes.patch").write_bytes(unified_patch("my script.py", text, after).encode())
    git = ["git", "-c", "core.autocrlf=false", "apply", "--whitespace=nowarn", "changes.patch"]
    subprocess.run(git, cwd=tmp_path, check=True)
    assert script.read_bytes() == after.encode()
    subprocess.run([*git, "-R"], cwd=tmp_path, check=True)
    assert script.read_bytes() == text.encode()


@pytest.mark.parametrize("path", [p for p in LIFTED if header(p, "emit")], ids=ids)
def test_what_cannot_be_edited_is_refused(path: Path) -> None:
    with pytest.raises(DiffoptError, match=header(path, "emit")):
        emit_edits(optimized_file(path, TRACES[0]), read(path), path=path)


@pytest.mark.parametrize(
    ("script", "lines"),
    [
        ("auto_pipeline", ["        num_inference_steps=3,  # enough for a draft  # diffopt: reduce-steps"]),
        ("constant_read_once", ["STEPS = 3  # tuned by hand  # diffopt: reduce-steps"]),
        ("argparse", ["type=int, default=3, help="]),
        (
            "multi_line_no_comma",
            ["    guidance_scale=4,  # strong\n    num_inference_steps=3,  # diffopt: reduce-steps\n)"],
        ),
        (
            "builder_returns",
            ['    pipe = StableDiffusionPipeline.from_pretrained(path).to("cpu")', "    return pipe\n"],
        ),
        ("alias", ["generator.scheduler = DPM.from_config("]),
        ("import_module", ["pipe.scheduler = diffusers.DPMSolverMultistepScheduler.from_config("]),
        (
            "shadowed_names",
            ["import quantize as diffopt_quantize  # diffopt: quantize", 'diffopt_quantize(pipe, "unet"'],
        ),
        ("positional", ['pipe("a hat", 64, 128, 3)  # diffopt: reduce-steps']),
        ("kwargs_literal", ['    "num_inference_steps": 3,  # diffopt: reduce-steps']),
        ("tabs", ['\t\tquantize(self._pipe, "unet"', "\t\t                  num_inference_steps=3,  # diffopt"]),
    ],
)
def test_edits_read_as_if_the_user_had_made_them(script: str, lines: list[str]) -> None:
    path = SCRIPTS / f"{script}.py.txt"
    text = read(path)
    after = apply_edits(text, edits_of(path, TRACES[0]))
    for line in lines:
        assert line in after


class Anything:
    """Stands for any object of a library: everything can be asked of it, and nothing happens."""

    def __getattr__(self, name: str) -> Anything:
        return Anything()

    def __call__(self, *args: object, **_: object) -> object:
        return args[0] if len(args) == 1 and callable(args[0]) and not isinstance(args[0], Anything) else Anything()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def __getitem__(self, _: object) -> Anything:
        return self


class FakePipeline:
    """Writes down what is done to it."""

    events: list[tuple[str, str, object]] = []

    @classmethod
    def from_pretrained(cls, *_: object, **__: object) -> FakePipeline:
        cls.events.append(("construct", "", None))
        return cls()

    def __getattr__(self, name: str) -> object:
        if name in ("scheduler", "unet", "vae"):
            return Anything()

        def method(*args: object, **_: object) -> FakePipeline:
            self.events.append(("set-up", name, None))
            return self

        return method

    def __setattr__(self, name: str, value: object) -> None:
        self.events.append(("set-up", name, getattr(value, "made_by", None)))

    def __call__(self, *args: object, **named: object) -> Anything:
        given = {**dict(zip(("prompt", "height", "width", "num_inference_steps"), args, strict=False)), **named}
        self.events.append(("call", "", given.get("num_inference_steps")))
        return Anything()


class FakeModule(ModuleType):
    """A library of which every name is there."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        if self.__name__ == "diffopt.backends.runtime":
            return lambda *_, **__: FakePipeline.events.append(("runtime", name, None))
        if name == "BaseModel" or name == "StableDiffusionPipeline" or name.startswith(("Auto", "DiffusionP")):
            return FakePipeline if self.__name__ == "diffusers" else type(name, (), {"__init__": lambda *_, **__: None})
        return Anything()


def events(text: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, object]]:
    """Run a script with fakes for its libraries and return what it does to its pipeline."""
    diffusers = FakeModule("diffusers")
    diffusers.__dict__["__all__"] = ["StableDiffusionPipeline"]
    for name in ("torch", "gradio", "fastapi", "pydantic", "diffopt.backends.runtime"):
        monkeypatch.setitem(sys.modules, name, FakeModule(name))
    monkeypatch.setitem(sys.modules, "diffusers", diffusers)
    monkeypatch.setattr(sys, "argv", ["script.py", *shlex.split(header(path, "argv"))])
    monkeypatch.setenv("PROMPT", "a star")
    monkeypatch.setattr(FakePipeline, "events", [])
    module = ModuleType("__main__")
    module.__dict__["__file__"] = str(path)
    monkeypatch.setitem(sys.modules, "__main__", module)
    code: object = 0
    try:
        exec(compile(text.removeprefix("\ufeff"), str(path), "exec"), module.__dict__)  # noqa: S102 - it is ours
    except SystemExit as end:
        code = end.code
    assert not code
    return FakePipeline.events


NOT_RUN = ("web_app", "gradio_app")
COMPILED = ("optimized_already",)
"""Scripts that compile their denoiser, which leaves nothing to quantize."""


@pytest.mark.parametrize("path", [p for p in EDITABLE if ids(p) not in (*NOT_RUN, *COMPILED)], ids=ids)
def test_patched_script_sets_up_then_optimizes_then_calls(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = read(path)
    patched = apply_edits(text, edits_of(path, TRACES[0]))
    before = first_pipeline(events(text, path, monkeypatch))
    after = first_pipeline(events(patched, path, monkeypatch))
    kinds = [kind for kind, _, _ in after]
    ours = kinds.index("runtime")
    assert after[ours - 1][:2] == ("set-up", "scheduler")
    theirs = [*after[: ours - 1], *after[ours + 1 :]]
    assert [event[:2] for event in theirs] == [event[:2] for event in before]
    assert set(kinds[ours + 1 :]) <= {"call"}
    assert "call" not in kinds[:ours]
    assert {steps for kind, _, steps in after if kind == "call"} == {3}


def first_pipeline(found: list[tuple[str, str, object]]) -> list[tuple[str, str, object]]:
    """Leave out what happens to a second pipeline that the same line builds."""
    starts = [i for i, (kind, _, _) in enumerate(found) if kind == "construct"]
    return found[: starts[1]] if len(starts) > 1 and found[-1][0] == "call" else list(found)


@st.composite
def reformatted(draw: st.DrawFn) -> tuple[Path, str]:
    """Draw a script of the corpus in another layout: line ends, tabs, blank lines, comments, no last line end."""
    path = draw(st.sampled_from(EDITABLE))
    lines = read(path).replace("\r\n", "\n").split("\n")
    if draw(st.booleans()):
        lines = [re.sub(r"^(?:    )+", lambda m: "\t" * (len(m[0]) // 4), line) for line in lines]
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(lines) - 1))
        match draw(st.sampled_from(["blank", "comment", "end", "spaces", "split"])):
            case "blank":
                lines.insert(at, draw(st.sampled_from(["", "   ", "\t"])))
            case "comment":
                lines.insert(at, draw(st.sampled_from(["# note", "        # far", "#", "# diffopt is not meant"])))
            case "end":
                lines[at] += draw(st.sampled_from(["  # why", " # é", "; pass", ";"]))
            case "spaces":
                lines[at] += "   "
            case "split":
                lines[at] = lines[at].replace("(", draw(st.sampled_from(["(\n\n  ", "( # open\n", "(  "])), 1)
    text = "\n".join(lines)
    if draw(st.booleans()):
        text = text.rstrip("\n")
    return path, text.replace("\n", draw(st.sampled_from(["\n", "\r\n", "\n"])))


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(reformatted(), st.sampled_from(TRACES))
def test_laws_hold_in_any_layout(drawn: tuple[Path, str], trace: str) -> None:
    path, text = drawn
    try:
        ast.parse(text.removeprefix("\ufeff"))
    except SyntaxError:
        assume(False)
    check_laws(text, path, optimized_file(path, trace))


@settings(max_examples=30)
@given(st.sampled_from(EDITABLE), st.floats(0, 1))
def test_a_truncated_script_is_edited_or_refused(path: Path, share: float) -> None:
    text = read(path)
    text = text[: int(len(text) * share)]
    with suppress(DiffoptError):
        edits = emit_edits(optimized_file(path, TRACES[0]), text, path=path)
        ast.parse(apply_edits(text, edits).removeprefix("\ufeff"))


@given(st.text(alphabet="ab\n\r\t \f\x1c é", max_size=40), st.text(alphabet="ab\n\r\t \f\x1c é", max_size=40))
def test_a_patch_holds_both_texts(before: str, after: str) -> None:
    patch = unified_patch("a.py", before, after)
    assert (patch == "") == (before == after)
    assert patch == "" or patch.startswith("--- a/a.py\n+++ b/a.py\n@@ ")


def test_overlapping_edits_are_a_bug() -> None:
    with pytest.raises(ValueError, match="overlap"):
        apply_edits("abcdef", (Edit(0, 3, "x"), Edit(2, 4, "y")))


@pytest.mark.parametrize("tail", ["\n    ", "\n\n        # far\n", "\n\f\n"])
def test_blanks_and_comments_at_the_end_stay(tail: str) -> None:
    path = SCRIPTS / "semicolons.py.txt"
    text = read(path) + tail
    assert check_laws(text, path, optimized_file(path, TRACES[0])).endswith(tail)
