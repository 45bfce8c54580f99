"""Input made to hurt is refused soon, in one line, with what to do."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from diffopt.ir.errors import DiffoptError
from diffopt.ir.source_directory import describe_directory
from diffopt.ir.source_script import describe_script, describe_text

HEAD = "from diffusers import StableDiffusionPipeline\npipe = StableDiffusionPipeline.from_pretrained('a/b')\n"
CALL = "pipe('x', num_inference_steps=n)\n"


def refusal(text: str) -> str:
    with pytest.raises(DiffoptError) as caught:
        describe_text(text, "app.py")
    return str(caught.value)


def test_a_form_feed_at_the_start_of_a_line_is_named() -> None:
    assert refusal(f"\f{HEAD}{CALL}") == "app.py:1: a form feed begins this line; delete that character"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "app.py")
    with pytest.raises(DiffoptError, match="not a regular file"):
        describe_script(tmp_path / "app.py")


def test_a_device_is_not_read() -> None:
    with pytest.raises(DiffoptError, match="not a regular file"):
        describe_script(os.devnull)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("x = [1, 2, 3]\n" * 60_000, "60,003 lines of code are too much"),
        ("n = 1\n" + "if c:\n    n = 3\nelse:\n    n = n\n" * 400, "too involved to be read"),
    ],
    ids=["lines", "branches"],
)
def test_too_much_work_is_refused_soon(body: str, said: str) -> None:
    start = time.process_time()
    assert said in refusal(HEAD + body + CALL)
    assert time.process_time() - start < 10


def saved(folder: Path, index: Mapping[str, object], **configs: object) -> Path:
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8-sig")
    for name, config in configs.items():
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.mark.parametrize(("name", "near"), [("print", ""), ("StableDifusionPipeline", "StableDiffusionPipeline")])
def test_a_class_that_diffusers_does_not_have_is_refused_with_the_nearest(name: str, near: str, tmp_path: Path) -> None:
    with pytest.raises(DiffoptError, match=f"no pipeline class '{name}'.*{near}.*--set pipeline_class"):
        describe_directory(saved(tmp_path, {"_class_name": name}))


def test_a_class_can_be_given_in_its_place(tmp_path: Path) -> None:
    index = {"_class_name": "MyPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
    described = describe_directory(saved(tmp_path, index), class_name="StableDiffusionPipeline")
    assert described.pipeline_class == "diffusers.StableDiffusionPipeline"


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    assert describe_directory(saved(tmp_path, {"_class_name": "StableDiffusionPipeline"})).components == ()


def test_a_vae_of_thousands_of_blocks_is_refused_in_a_short_line(tmp_path: Path) -> None:
    index = {"_class_name": "StableDiffusionPipeline", "vae": ["diffusers", "AutoencoderKL"]}
    with pytest.raises(DiffoptError, match="a VAE of 5000 blocks is none") as caught:
        describe_directory(saved(tmp_path, index, vae={"block_out_channels": [4] * 5000}))
    assert len(str(caught.value)) < 200
