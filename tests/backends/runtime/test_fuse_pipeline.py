"""One function from token ids and noise to the picture: the pipeline's images, its parts as calls, exportable as a whole."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

from diffopt.backends.base import BackendError
from diffopt.backends.runtime import fuse_pipeline, half_precision, witnesses
from diffopt.backends.runtime.fuse_pipeline import FUSED
from diffopt.bench.stand_ins import AUTOENCODER, write_autoencoder
from diffopt.ir.description import build_module
from diffopt.ir.emit_pipeline import emit_pipeline
from diffopt.ir.source_directory import describe_directory
from diffopt.passes.pipeline import Trace, applied

pytestmark = pytest.mark.slow


def _load(trace: str, directory: Path, folder: Path, steps: int = 3) -> Any:
    module = build_module(describe_directory(directory, steps=steps, guidance=2.0, name="tiny"))
    file = folder / "pipeline.py"
    file.write_text(emit_pipeline(applied(Trace.parse(trace), module)), encoding="utf-8")
    pipe = runpy.run_path(str(file))["load"]()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _image(pipe: Any, **given: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    found: torch.Tensor = pipe("a red circle", generator=generator, output_type="pt", **given).images
    return found


@pytest.mark.parametrize("before", ["", "unroll-steps,", "guidance-window,cache-features{interval=2},", "quantize,"])
def test_the_function_makes_the_images_and_follows_the_plan(tiny_directory: Path, tmp_path: Path, before: str) -> None:
    expected = _image(_load(before.removesuffix(","), tiny_directory, tmp_path))
    pipe = _load(f"{before}fuse-pipeline", tiny_directory, tmp_path)
    assert (_image(pipe) - expected).abs().max() < 1e-5
    done = {witness.transform: witness.count for witness in witnesses(pipe)}
    assert done.pop("fuse_pipeline") == 1
    assert all(count > 0 for count in done.values())


def test_engines_made_before_are_the_calls_of_the_function(tiny_directory: Path, tmp_path: Path) -> None:
    expected = _image(_load("", tiny_directory, tmp_path))
    pipe = _load("export,fuse-pipeline", tiny_directory, tmp_path)
    assert (_image(pipe) - expected).abs().max() < 1e-3
    program = pipe.__dict__[FUSED]
    calls = [node.target for node in program.graph.graph.nodes if node.op == "call_module"]
    assert sorted(calls) == ["text_encoder", *["unet"] * 3, "vae"]
    counts = [witness.count for witness in witnesses(pipe) if witness.transform == "export"]
    assert sorted(counts) == [1, 1, 3]


def test_a_small_autoencoder_is_the_last_call_of_the_function(
    tiny_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_autoencoder(tmp_path / AUTOENCODER, tiny_directory)
    monkeypatch.chdir(tmp_path)
    asked = f"tiny-vae{{directory={AUTOENCODER.as_posix()}}}"
    expected = _image(_load(asked, tiny_directory, tmp_path))
    pipe = _load(f"{asked},fuse-pipeline", tiny_directory, tmp_path)
    assert (_image(pipe) - expected).abs().max() < 1e-5
    done = {witness.transform: witness.count for witness in witnesses(pipe)}
    assert (done["fuse_pipeline"], done["tiny_vae"]) == (1, 1)


def test_other_requests_run_as_before(tiny_directory: Path, tmp_path: Path) -> None:
    plain, pipe = (_load(trace, tiny_directory, tmp_path) for trace in ("", "fuse-pipeline"))
    assert torch.equal(_image(pipe, num_inference_steps=2), _image(plain, num_inference_steps=2))
    assert next(iter(witnesses(pipe))).count == 0


def test_the_function_is_exported_whole(tiny_directory: Path, tmp_path: Path) -> None:
    program = _load("fuse-pipeline", tiny_directory, tmp_path, steps=1).__dict__[FUSED]
    with torch.no_grad():
        exported = torch.export.export(program.graph, program.inputs, strict=False)
        (expected,), (found,) = program.graph(*program.inputs), exported.module()(*program.inputs)
    assert (found - expected).abs().max() < 1e-4


def test_what_cannot_be_one_function_is_refused(tiny_directory: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"steps": 1, "guidance": 2.0, "height": 48, "width": 64}
    pipe = _load("fuse-pipeline", tiny_directory, tmp_path)
    with pytest.raises(BackendError, match="one function already"):
        fuse_pipeline(pipe, **given)
    narrow = _load("", tiny_directory, tmp_path)
    half_precision(narrow, "unet", dtype="bfloat16")
    with pytest.raises(BackendError, match="not in float32"):
        fuse_pipeline(narrow, **given)
