"""`diffopt measure`: any two pipelines against each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffopt.bench.evaluate import Measured
from diffopt.cli import main
from diffopt.comparison import compare_sources, comparison_lines, defines_load
from diffopt.ir.errors import DiffoptError

SLOWER = """
import time
import torch
from diffusers import StableDiffusionPipeline

def load(device="cpu", engines=None):
    pipe = StableDiffusionPipeline.from_pretrained({model!r}, dtype=torch.float32)
    class Slow(type(pipe)):
        def __call__(self, *args, **kwargs):
            time.sleep(0.15)
            return super().__call__(*args, **{{"num_inference_steps": 2, "guidance_scale": 2.0}} | kwargs)
    pipe.__class__ = Slow
    return pipe
"""


@pytest.mark.slow
def test_a_script_with_a_load_is_raced_against_a_model_directory(tiny_directory: Path, tmp_path: Path) -> None:
    script = tmp_path / "slower.py"
    script.write_text(SLOWER.format(model=str(tiny_directory)))
    given = {"steps": "2", "guidance": "2"}
    found = compare_sources(str(tiny_directory), str(script), pairs=10, settings=given)
    assert isinstance(found.outcome, Measured), found.outcome
    assert found.outcome.latency.hi < 1
    assert found.outcome.tier == "exact"
    text = "\n".join(comparison_lines(found))
    assert "B is slower" in text
    assert found.to_json()["ok"]


def test_a_script_that_defines_load_is_told_from_one_that_is_lifted() -> None:
    assert defines_load("def load(): ...")
    assert not defines_load("pipe = load()\ndef other():\n    def load(): ...")
    assert not defines_load("def load(:")
    assert not defines_load("x=" + "-" * 200_000 + "1")


def test_two_scripts_of_their_own_need_a_size(tmp_path: Path) -> None:
    script = tmp_path / "a.py"
    script.write_text("def load(): ...")
    with pytest.raises(DiffoptError, match="nothing tells the size"):
        compare_sources(str(script), str(script))


@pytest.mark.parametrize("option", ["--pairs=0", "--batch=-5", "--seed=-1"])
def test_a_number_that_cannot_be_is_one_line(capsys: pytest.CaptureFixture[str], option: str) -> None:
    assert main(["measure", "demo:shapes", "demo:shapes", option]) == 2
    assert option.partition("=")[0] in capsys.readouterr().err
