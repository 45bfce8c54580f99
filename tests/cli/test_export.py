"""`diffopt export` and `diffopt backends` on the command line."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from diffopt.cli import main


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run a command line that must fail; return the last line it says."""
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()[-1]


@pytest.mark.parametrize("text", ["x", "0", "4:1", "1:2:3:4", "2:1:3", "-1", "1:99999999999999999999"])
def test_a_range_that_does_not_rise_is_refused(capsys: pytest.CaptureFixture[str], text: str) -> None:
    said = refused(capsys, "export", "demo:shapes", f"--batch={text}")
    assert "is no N, LEAST:MOST or LEAST:USUAL:MOST" in said
    assert "like --batch 1:4" in said


def test_only_tensorrt_is_built_in_two_steps(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "add --backend tensorrt" in refused(capsys, "export", "demo:shapes", "--prepare")
    if importlib.util.find_spec("tensorrt") is None:
        assert "pip install" in refused(capsys, "export", "--finish", str(tmp_path))


def test_the_pass_export_is_not_for_export(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["export", "demo:shapes", "--passes", "export", "-o", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == "diffopt: --passes: export is what this command does; leave the pass export out\n"
    assert not list(tmp_path.iterdir())


def test_there_must_be_something_to_export(capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is nothing to export" in refused(capsys, "export")


@pytest.mark.slow
def test_a_component_is_exported_checked_and_kept(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    argv = ("export", "demo:shapes", "--component", "text_encoder", "--batch", "1:3", "-o", str(tmp_path), "--json")
    assert main(argv) == 0
    (row,) = json.loads(capsys.readouterr().out)["components"]
    assert (row["name"], row["built"], row["open"]) == ("text_encoder", True, {"batch": [1, 1, 3]})
    assert row["facts"]["relative_l2_error"] < 1e-5
    assert main(argv) == 0
    (row,) = json.loads(capsys.readouterr().out)["components"]
    assert not row["built"]
    assert "no component 'controlnet'" in refused(
        capsys, "export", "demo:shapes", "--component", "controlnet", "-o", str(tmp_path)
    )


def test_the_list_of_backends_says_what_is_missing_and_what_may_be_added(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(("backends", "--home", str(tmp_path), "--json")) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"openvino", "onnxruntime", "aotinductor", "tensorrt"} <= {row["name"] for row in found["builders"]}
    assert not any(row["added"] for row in found["environments"])
    assert "no environment is called" in refused(capsys, "backends", "add", "tensorflow", "--home", str(tmp_path))
