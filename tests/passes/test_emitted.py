"""The emitted code of passes runs on a small pipeline, and each says what it did."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch

from diffopt.backends.runtime import witnesses
from diffopt.ir.description import build_module
from diffopt.ir.emit_pipeline import emit_pipeline
from diffopt.ir.source_directory import describe_directory
from diffopt.passes.pipeline import Trace, applied

CASES = {
    "reuse-prompt-embeddings": 0.0,
    "hoist-cross-attention": 0.0,
    "constant-embeddings": 0.0,
    "slice-vae": 0.0,
    "fold-negative-prompt": 0.0,
    "unload-encoder": 0.0,
    "unroll-steps": 1e-4,
    "fuse-pipeline": 1e-4,
    "unroll-steps,fuse-pipeline": 1e-4,
    "merge-tokens": 1.0,
    "fuse-qkv": 1e-5,
    "channels-last": 1e-4,
    "vae-channels-last": 1e-4,
    "half-precision": 0.1,
    "half-precision{part=vae}": 0.1,
    "tile-vae{tile=16}": 1.0,
    "cast-layerwise": 0.5,
    "fuse-qkv,hoist-cross-attention,constant-embeddings,slice-vae,reuse-prompt-embeddings": 1e-5,
}
"""How far from the baseline's an image may be, in [0, 1]."""


def _pictures(trace: str, directory: Path, folder: Path) -> tuple[torch.Tensor, dict[str, int]]:
    module = build_module(describe_directory(directory, steps=2, guidance=2.0, name="tiny"))
    file = folder / "pipeline.py"
    file.write_text(emit_pipeline(applied(Trace.parse(trace), module)), encoding="utf-8")
    pipe = runpy.run_path(str(file))["load"]()
    pipe.set_progress_bar_config(disable=True)
    for _ in range(2):
        images = pipe("a red circle", generator=torch.Generator().manual_seed(0), output_type="pt").images
    return images, {witness.transform: witness.count for witness in witnesses(pipe)}


@pytest.mark.slow
@pytest.mark.parametrize("trace", CASES)
def test_the_emitted_code_makes_the_image_and_tells_what_it_did(
    tiny_directory: Path, tmp_path: Path, trace: str
) -> None:
    plain, nothing = _pictures("", tiny_directory, tmp_path)
    images, done = _pictures(trace, tiny_directory, tmp_path)
    assert nothing == {}
    assert (images - plain).abs().max() <= CASES[trace]
    expected = [name.partition("{")[0].removeprefix("vae-").replace("-", "_") for name in trace.split(",")]
    assert {name: done.get(name, 0) > 0 for name in expected} == dict.fromkeys(expected, True)
