"""Engines are quantized by calls recorded over the steps of real requests, and the images stay near."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

from diffopt.backends.runtime import witnesses
from diffopt.ir.description import build_module
from diffopt.ir.emit_pipeline import emit_pipeline
from diffopt.ir.source_directory import describe_directory
from diffopt.passes.pipeline import Trace, applied

pytest.importorskip("nncf")
pytestmark = pytest.mark.slow


def _load(trace: str, directory: Path, folder: Path) -> Any:
    module = build_module(describe_directory(directory, steps=3, guidance=2.0, name="tiny"))
    file = folder / "pipeline.py"
    file.write_text(emit_pipeline(applied(Trace.parse(trace), module)), encoding="utf-8")
    pipe = runpy.run_path(str(file))["load"]()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _image(pipe: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    found: torch.Tensor = pipe("a red circle", generator=generator, output_type="pt").images
    return found


@pytest.mark.parametrize("mode", ["weights", "hybrid", "full"])
def test_an_engine_is_quantized_by_what_was_recorded(tiny_directory: Path, tmp_path: Path, mode: str) -> None:
    plain = _image(_load("", tiny_directory, tmp_path))
    pipe = _load(f"calibrate{{mode={mode} samples=4}},export{{scope=denoiser}}", tiny_directory, tmp_path)
    assert (_image(pipe) - plain).abs().mean() < 0.1
    done = {witness.transform: witness for witness in witnesses(pipe)}
    assert done["calibrate"].count == 4
    assert done["export"].count == 3
    (facts,) = (file.read_text() for file in (tmp_path / "engines").glob("*/engine.json"))
    assert f'"nncf": "{mode}"' in facts.replace('":"', '": "')


def test_both_engines_of_a_cache_are_quantized(tiny_directory: Path, tmp_path: Path) -> None:
    trace = "cache-features{interval=2},calibrate{samples=4},export{scope=denoiser}"
    pipe = _load(trace, tiny_directory, tmp_path)
    assert torch.isfinite(_image(pipe)).all()
    assert len(list((tmp_path / "engines").glob("*/engine.json"))) == 2
