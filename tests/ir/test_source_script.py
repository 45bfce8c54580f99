"""Lifting scripts: what a corpus in many styles must come to, and what must be refused in one line."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffopt.ir.description import PipelineDescription
from diffopt.ir.errors import DiffoptError
from diffopt.ir.script_text import read_script
from diffopt.ir.source_script import describe_script, describe_text

SCRIPTS = Path(__file__).parent / "scripts"
CORPUS = sorted(SCRIPTS.glob("*.py.txt"))
PLAIN = SCRIPTS / "plain.py.txt"


def header(path: Path, key: str) -> str | None:
    """Return what a script of the corpus says about itself in a comment at its top."""
    lines = read_script(path).splitlines()[:4]
    return next((line.partition(": ")[2] for line in lines if line.startswith(f"# {key}: ")), None)


def seen(described: PipelineDescription) -> Iterator[tuple[str, str]]:
    """Yield what a header can expect of a description."""
    for name in ("name", "steps", "guidance", "height", "width", "batch", "dtype", "negative_prompt"):
        yield name, str(getattr(described, name))
    scheduler = described.component("scheduler")
    yield "scheduler", scheduler.class_name if scheduler else ""
    yield "unknown", ",".join(unknown.name for unknown in described.unknowns)


def ids(path: Path) -> str:
    return path.name.partition(".")[0]


@pytest.mark.parametrize("path", [p for p in CORPUS if header(p, "expect")], ids=ids)
def test_corpus_lifts_as_its_header_says(path: Path) -> None:
    described = describe_script(path)
    expected = dict(part.split("=", 1) for part in shlex.split(header(path, "expect") or ""))
    found = dict(seen(described))
    assert {key: found[key] for key in expected} == expected
    assert found["unknown"] == expected.get("unknown", "")
    assert described.pipeline_class == "diffusers.StableDiffusionPipeline"
    assert Path(described.model) == SCRIPTS / "model"
    assert described.source == str(path)


@pytest.mark.parametrize("path", [p for p in CORPUS if header(p, "refuse")], ids=ids)
def test_corpus_is_refused_as_its_header_says(path: Path) -> None:
    with pytest.raises(DiffoptError, match=r"^[^\n]*$") as refusal:
        describe_script(path)
    assert (header(path, "refuse") or "") in str(refusal.value)
    assert str(refusal.value).startswith(str(path))


def test_spans_point_at_the_construction_and_the_call() -> None:
    spans = describe_script(PLAIN).spans
    lines = PLAIN.read_text().splitlines()
    for name, text in (("construct", "StableDiffusionPipeline.from_pretrained("), ("call", "pipe("), ("steps", "50")):
        assert lines[spans[name].line - 1][spans[name].column :].startswith(text)


def test_scheduler_config_carries_the_overrides_of_the_script() -> None:
    scheduler = describe_script(SCRIPTS / "class_attribute.py.txt").component("scheduler")
    assert scheduler is not None
    assert scheduler.config["algorithm_type"] == "dpmsolver++"
    assert scheduler.config["prediction_type"] == "v_prediction"


def test_a_setting_goes_before_the_source_and_fills_what_is_unknown() -> None:
    path = SCRIPTS / "required_option.py.txt"
    unknown = describe_script(path).unknowns[0]
    assert unknown.name == "steps"
    assert unknown.span is not None
    assert unknown.span.line == 8
    described = describe_script(path, settings={"steps": "30", "guidance": "2", "dtype": "bfloat16"})
    assert (described.steps, described.guidance, described.dtype, described.unknowns) == (30, 2.0, "bfloat16", ())


def test_a_setting_chooses_among_several_pipelines() -> None:
    described = describe_script(SCRIPTS / "several_pipelines.py.txt", settings={"pipeline": "other"})
    assert described.name == "other"
    assert described.spans["construct"].line == 5


MODEL_UNKNOWN = """import sys

from diffusers import StableDiffusionPipeline

pipe = StableDiffusionPipeline.from_pretrained(sys.argv[1])
pipe("a cat")
"""


def test_a_setting_gives_the_model() -> None:
    unknown = describe_text(MODEL_UNKNOWN, "script.py").unknowns[0]
    assert (unknown.name, unknown.span and unknown.span.line) == ("model", 5)
    described = describe_text(MODEL_UNKNOWN, "script.py", settings={"model": str(SCRIPTS / "model")})
    assert Path(described.model) == SCRIPTS / "model"
    assert described.unknowns == ()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"stepz": "3"}, "nothing is called 'stepz'"),
        ({"steps": "many"}, "steps=many: not a whole number"),
        ({"steps": "0"}, "steps=0: not a whole number"),
        ({"guidance": "nan"}, "guidance=nan: not a number"),
        ({"dtype": "int3"}, "dtype=int3: not one of"),
        ({"pipeline": "nobody"}, "no pipeline 'nobody'"),
        ({"model": "/nowhere/at/all"}, "model directory not found"),
    ],
)
def test_bad_settings_are_refused(given: dict[str, str], message: str) -> None:
    with pytest.raises(DiffoptError, match=message):
        describe_script(PLAIN, settings=given)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "no such script"),
        (b"\x7fELF\0\0\1", "a binary file, not a Python script"),
        (b"name = 'K\xf6ln'\n", ":1: not UTF-8 text"),
        (b"import diffusers\npipe = (\n", ":2: not valid Python"),
        (b"", "no diffusers pipeline is built"),
        (b"x = " + b"-" * 3000 + b"1\n", "nested too deeply"),
        (b"x = " + b"(" * 3000 + b")" * 3000 + b"\n", "too many nested parentheses"),
        (b"from diffusers import FluxxPipeline\nFluxxPipeline.from_pretrained('a/b')\n", ":2: the installed diffusers"),
    ],
)
def test_bad_scripts_are_refused_in_one_line(tmp_path: Path, data: bytes | None, message: str) -> None:
    path = tmp_path / "script.py"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(DiffoptError) as refusal:
        describe_script(path)
    assert str(refusal.value).startswith(str(path))
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DiffoptError, match="a directory, not a script"):
        describe_script(tmp_path)


@settings(max_examples=30)
@given(st.sampled_from(CORPUS), st.floats(0, 1))
def test_a_truncated_script_lifts_or_is_refused(path: Path, share: float) -> None:
    text = read_script(path)
    with suppress(DiffoptError):
        describe_text(text[: int(len(text) * share)], path)


def test_lifting_imports_no_torch_and_no_diffusers() -> None:
    code = (
        "import sys; from diffopt.ir.source_script import describe_script; describe_script(sys.argv[1]); "
        "sys.exit(bool({'torch', 'diffusers', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code, str(PLAIN)], check=False).returncode == 0


@pytest.mark.slow
def test_a_thousand_lines_lift_in_a_second() -> None:
    function = (
        "def f{0}(a, b=3):\n    x = a + b * {0}\n    for k in range(9):\n        print(f'{{k}}', a.b.c(d=[1, 2]))\n\n"
    )
    text = PLAIN.read_text() + "".join(function.format(i) for i in range(200))
    assert text.count("\n") > 1000
    took = []
    for _ in range(3):
        start = time.process_time()
        describe_text(text, PLAIN)
        took.append(time.process_time() - start)
    assert min(took) < 1
