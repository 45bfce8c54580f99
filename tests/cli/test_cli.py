"""The command line says what is wrong in one line with exit code 2, and prints what it promises."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from diffopt.cli import main

GOOD = "from diffusers import StableDiffusionPipeline\npipe = StableDiffusionPipeline.from_pretrained('model')\npipe('x')\n"


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run a command line that must fail; return its one line."""
    try:
        code = main(argv)
    except SystemExit as exit_:
        code = int(str(exit_.code))
    captured = capsys.readouterr()
    assert code == 2, captured
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 1, captured.err
    assert "Traceback" not in captured.err
    return lines[0]


def printed(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run a command line that must work; return its standard output."""
    assert main(argv) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", [("lift",), ("compile",), ("emit",), ("opt", "--passes", "compile")])
def test_a_wrong_path_is_one_line(capsys: pytest.CaptureFixture[str], command: tuple[str, ...]) -> None:
    assert "no such file" in refused(capsys, command[0], "nowhere/at_all.py", *command[1:])


def test_an_unreadable_script_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_bytes(b"\xff\xfe\x00binary")
    assert str(script) in refused(capsys, "lift", str(script))


def test_a_script_that_does_not_parse_names_the_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import torch\n\ndef broken(:\n    pass\n")
    assert f"{script}:3" in refused(capsys, "lift", str(script))


def test_a_script_without_a_pipeline_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("print('hello')\n")
    assert "pipeline" in refused(capsys, "lift", str(script))


def test_a_script_with_a_missing_model_names_the_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(GOOD)
    line = refused(capsys, "compile", str(script), "-o", str(tmp_path / "out"))
    assert f"{script}:2: the model 'model' is not on this machine; download it first" in line
    assert not list(tmp_path.glob("out*"))


def test_an_unknown_pass_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "opt", "demo:shapes", "--passes", "reduce-step{steps=3}")
    assert "unknown pass 'reduce-step'" in line
    assert "did you mean reduce-steps?" in line


def test_a_bad_option_value_names_pass_option_and_value(capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "opt", "demo:shapes", "--passes", "guidance-window{stop=1.5}")
    assert "guidance-window" in line
    assert "stop=1.5" in line


def test_an_illegal_order_names_the_rule(capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "opt", "demo:shapes", "--passes", "export{backend=openvino},quantize")
    assert "quantize must come before export" in line
    assert "[order]" in line


@pytest.mark.parametrize(("command", "said"), [("compile", "; --resume goes on from here"), ("lift", "")])
def test_an_interruption_says_what_can_be_resumed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str, said: str
) -> None:
    def stop(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"diffopt.commands.{command}.run", stop)
    assert main([command, "demo:shapes"]) == 130
    assert capsys.readouterr().err == f"diffopt: interrupted{said}\n"


def test_a_misspelt_class_of_a_hub_id_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "lift", "some/model", "--set", "pipeline_class=StableDiffusionPipelin")
    assert line.endswith("diffusers has no pipeline 'StableDiffusionPipelin'; did you mean StableDiffusionPipeline?")


@pytest.mark.parametrize("budget", ["0", "soon", "-3", "1.5", ""])
def test_a_nonsense_budget_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path, budget: str) -> None:
    out = tmp_path / "out"
    assert "--budget: " in refused(capsys, "compile", "demo:shapes", "-o", str(out), f"--budget={budget}")
    assert not list(tmp_path.iterdir()), "bad usage must leave nothing behind"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--target", "gpu"), "unknown target 'gpu'; cpu or cuda[:N]"),
        (("--target", "cuda:99"), "no device cuda:99 on this machine"),
        (("--min-fidelity", "-5"), "--min-fidelity: must be a positive number, not -5"),
        (("--max-memory", "inf"), "--max-memory: must be a positive number, not inf"),
        (("--passes", ""), "--passes: no pass is named; leave it out to search"),
        (("--passes", "reduce-steps{steps=4}", "--keep-steps"), "change the steps, which are to be kept"),
        (("--bugdet", "5"), "did you mean --budget?"),
    ],
)
def test_an_option_that_cannot_be_meant_is_one_line_and_leaves_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    assert said in refused(capsys, "compile", "demo:shapes", "-o", str(tmp_path / "out"), *options)
    assert not list(tmp_path.iterdir())


def test_an_image_needs_a_format_and_a_prompt(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "no image format is called .xyz" in refused(capsys, "run", "art", "--prompt", "a", "-o", "b.xyz")
    assert "the prompt is empty" in refused(capsys, "run", "art", "--prompt", " ")


def test_a_bad_setting_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert "steps='many'" in refused(capsys, "lift", "demo:shapes", "--set", "steps=many")
    assert "NAME=VALUE" in refused(capsys, "lift", "demo:shapes", "--set", "steps")
    assert "unknown setting" in refused(capsys, "lift", "demo:shapes", "--set", "colour=red")


def test_an_artifact_is_not_overwritten_unasked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.txt").write_text("keep me")
    assert "already exists" in refused(capsys, "compile", "demo:shapes", "-o", str(tmp_path / "out"))
    assert "already exists" in refused(capsys, "compile", "demo:shapes", "-o", str(tmp_path / "out"), "--force")
    assert (tmp_path / "out" / "precious.txt").read_text() == "keep me"


def test_nothing_to_resume_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "no run to resume" in refused(capsys, "compile", "demo:shapes", "-o", str(tmp_path / "a"), "--resume")


def test_the_llm_planner_without_an_endpoint_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert "--llm-base-url" in refused(capsys, "compile", "demo:shapes", "-o", str(tmp_path / "a"), "--planner", "llm")


def test_a_missing_or_broken_artifact_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "no such artifact" in refused(capsys, "run", str(tmp_path / "none"), "--prompt", "x")
    assert "no manifest.json" in refused(capsys, "verify", str(tmp_path))
    (tmp_path / "manifest.json").write_text("{")
    assert "cannot be read" in refused(capsys, "verify", str(tmp_path))
    (tmp_path / "manifest.json").write_text('{"format": 99}')
    assert "format 99" in refused(capsys, "run", str(tmp_path), "--prompt", "x")


@pytest.mark.parametrize("command", [("explain",), ("run", "--prompt", "x"), ("verify",), ("bisect",)])
def test_a_missing_artifact_is_said_before_the_libraries_are_imported(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    for library in ("torch", "diffusers", "transformers", "numpy"):
        monkeypatch.setitem(sys.modules, library, None)
    assert "no such artifact" in refused(capsys, command[0], str(tmp_path / "none"), *command[1:])


@pytest.mark.parametrize("option", ["--floor", "--least-speedup"])
def test_a_bound_of_bisect_is_a_number(capsys: pytest.CaptureFixture[str], option: str) -> None:
    assert f"{option}: nan is no finite number" in refused(capsys, "bisect", "art", option, "nan")


def test_help_names_every_model_that_ships() -> None:
    from diffopt.bench.models import shipped
    from diffopt.commands import SOURCE

    named = SOURCE.replace(",", "").split()
    assert [word for word in named if word.startswith("demo:")] == list(shipped())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24k", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_is_one_line(small_disk: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "diffopt",
        "compile",
        "demo:shapes",
        "-o",
        str(small_disk / "out"),
        "--budget",
        "1",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=small_disk.parent, timeout=120, check=False)
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert "disk" in last or "space" in last.lower()
    assert str(small_disk) in last


def test_lift_prints_ir_that_opt_reads_back(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    ir = tmp_path / "shapes.mlir"
    ir.write_text(printed(capsys, "lift", "demo:shapes"))
    direct = printed(capsys, "opt", "demo:shapes", "--passes", "reduce-steps{steps=12},guidance-window{stop=0.6}")
    by_text = printed(capsys, "opt", str(ir), "--passes", "reduce-steps{steps=12},guidance-window{stop=0.6}")
    assert direct == by_text
    assert "steps 7 to 12" in direct


def test_emit_prints_python_that_compiles(capsys: pytest.CaptureFixture[str]) -> None:
    compile(printed(capsys, "emit", "demo:shapes", "--passes", "export{scope=pipeline}"), "pipeline.py", "exec")


def test_passes_lists_every_pass_and_shows_one(capsys: pytest.CaptureFixture[str]) -> None:
    listed = printed(capsys, "passes")
    names = [line.split()[0] for line in listed.splitlines()]
    assert names.index("reduce-steps") < names.index("guidance-window") < names.index("export")
    assert "stop: float = 0.6" in printed(capsys, "passes", "guidance-window")
    as_json = json.loads(printed(capsys, "passes", "--json"))
    assert {entry["name"] for entry in as_json} >= {"export", "quantize", "cache-features"}
    assert "unknown pass" in refused(capsys, "passes", "no-such")
    assert refused(capsys, "passes", "promote", "no-run", "x").startswith("diffopt: no-run: no such run; ")
    assert refused(capsys, "passes", "reduce-step").endswith("unknown pass 'reduce-step'; did you mean reduce-steps?")


def test_devices_names_the_processor(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(printed(capsys, "devices", "--json"))
    assert found["devices"][0]["device"] == "cpu"
    assert found["devices"][0]["cores"] == len(os.sched_getaffinity(0))
    assert "torch" in found["libraries"]


def test_output_into_a_closed_pipe_is_no_traceback() -> None:
    command = f"{sys.executable} -m diffopt passes export | head -c 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr


def test_a_patch_asks_for_no_size_that_it_does_not_name(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    script = tmp_path / "draw.py"
    script.write_text(GOOD.replace("'model'", "'nobody/nothing'"))
    patch = printed(capsys, "emit", str(script), "--patch", "--passes", "reduce-steps{steps=12}")
    assert "+pipe('x', num_inference_steps=12)" in patch
    whole = refused(capsys, "emit", str(script), "--patch", "--passes", "export{scope=pipeline}")
    for said in (whole, refused(capsys, "emit", str(script))):
        assert "height must be a whole number of pixels: give --set height=PIXELS" in said


def test_a_pass_shows_what_its_numbers_may_be(capsys: pytest.CaptureFixture[str]) -> None:
    assert "  steps: int = 20 (from 1 to 1000)\n" in printed(capsys, "passes", "reduce-steps")
    options = json.loads(printed(capsys, "passes", "guidance-window", "--json"))["options"]
    assert options[0]["must_be"] == "a fraction of the steps, from 0 to below 1"


def test_devices_are_shown_in_gigabytes(capsys: pytest.CaptureFixture[str]) -> None:
    shown = printed(capsys, "devices")
    assert re.search(r"^  memory: \d+\.\d GB$", shown, re.MULTILINE)
    assert "_bytes" not in shown
    assert "[" not in shown
