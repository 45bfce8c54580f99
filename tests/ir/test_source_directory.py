"""Lifting a directory reads JSON files and nothing else, and every fault in them is one clear line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffopt.ir.description import build_module
from diffopt.ir.errors import DiffoptError
from diffopt.ir.identity import parse_module, print_module
from diffopt.ir.source_directory import call_defaults, describe_directory
from diffopt.ir.verify import Stage, verify

INDEX: dict[str, Any] = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.42.1",
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
FILES: dict[str, Any] = {
    "model_index.json": INDEX,
    "scheduler/scheduler_config.json": {"_class_name": "DDIMScheduler", "beta_start": 1e-4, "trained_betas": None},
    "text_encoder/config.json": {"hidden_size": 64, "name": "é"},
    "tokenizer/tokenizer_config.json": {"model_max_length": 1000000000000000019884624838656},
    "unet/config.json": {"sample_size": [12, 16], "in_channels": 4},
    "vae/config.json": {"block_out_channels": [8, 16, 16]},
}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a model directory by hand; keyword `changes` replaces files (None: left out; str: as it is)."""

    def make(changes: dict[str, Any] | None = None) -> Path:
        for name, content in {**FILES, **(changes or {})}.items():
            if content is None:
                continue
            file = tmp_path / "model" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return tmp_path / "model"

    return make


def _error(path: str | Path) -> str:
    with pytest.raises(DiffoptError) as caught:
        build_module(describe_directory(path))
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_describes_what_is_there(write: Callable[..., Path]) -> None:
    path = write()
    found = describe_directory(path)
    assert found.pipeline_class == "diffusers.StableDiffusionPipeline"
    assert found.model == str(path.resolve())
    assert [part.name for part in found.components] == ["scheduler", "text_encoder", "tokenizer", "unet", "vae"]
    assert [part.class_name for part in found.components][3:] == [
        "diffusers.UNet2DConditionModel",
        "diffusers.AutoencoderKL",
    ]
    assert (found.height, found.width) == (48, 64)
    assert (found.steps, found.guidance) == (50, 7.5), "the defaults of StableDiffusionPipeline.__call__"


def test_what_is_given_wins(write: Callable[..., Path]) -> None:
    found = describe_directory(write(), steps=7, guidance=0.0, height=32, width=40, name="mine")
    assert (found.steps, found.guidance, found.height, found.width, found.name) == (7, 0.0, 32, 40, "mine")


def test_becomes_a_module_that_reads_back_and_can_be_emitted(write: Callable[..., Path]) -> None:
    module = build_module(describe_directory(write()))
    assert verify(module, Stage.EMITTABLE) == ()
    assert print_module(parse_module(print_module(module))) == print_module(module)


def test_a_part_that_is_null_is_no_component(write: Callable[..., Path]) -> None:
    assert describe_directory(write()).component("safety_checker") is None
    index = {**INDEX, "unet": [None, None]}
    assert "StableDiffusionPipeline has no denoiser" in _error(write({"model_index.json": index}))


def test_a_part_without_a_configuration_is_a_component(write: Callable[..., Path]) -> None:
    found = describe_directory(write({"tokenizer/tokenizer_config.json": None})).component("tokenizer")
    assert found is not None
    assert found.config == {}


@pytest.mark.parametrize(
    ("sample_size", "blocks", "size"),
    [(16, [1, 2, 3], (64, 64)), ([8, 16], [1, 2], (16, 32)), (None, [1, 2, 3, 4], (512, 512)), ("x", None, (512, 512))],
)
def test_the_image_is_the_latent_times_the_scale_of_the_vae(
    write: Callable[..., Path], sample_size: object, blocks: object, size: tuple[int, int]
) -> None:
    path = write({"unet/config.json": {"sample_size": sample_size}, "vae/config.json": {"block_out_channels": blocks}})
    found = describe_directory(path)
    assert (found.height, found.width) == size


def test_weights_are_not_read(write: Callable[..., Path]) -> None:
    path = write()
    before = describe_directory(path)
    (path / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"\xff no weights at all")
    assert describe_directory(path) == before


def test_a_path_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    assert _error(missing) == f"{missing}: no such model directory; check the path"
    assert "no such model directory" in _error("odd\0name")
    assert "File name too long" in _error("a" * 5000)


def test_a_path_that_is_no_model_directory_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "file.txt"
    file.write_text("text")
    for path in (tmp_path, file):
        assert _error(path).startswith(f"{path}: not a diffusers model directory: it has no model_index.json; give a")


@pytest.mark.parametrize("file", ["model_index.json", "unet/config.json", "scheduler/scheduler_config.json"])
@pytest.mark.parametrize(
    ("content", "line", "said"),
    [
        ('{\n  "a": 1,\n  oops\n}', ":3", "not JSON: Expecting property name enclosed in double quotes"),
        ("", ":1", "not JSON: Expecting value"),
        ("[1]", "", "holds no JSON object"),
        ('"text"', "", "holds no JSON object"),
        ('{"a": ' + "9" * 5000 + "}", "", "cannot be read: ValueError"),
        ('{"a": ' + "[" * 100 + "]" * 100 + "}", "", "nested more than 32 deep"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "", "cannot be read: RecursionError"),
    ],
)
def test_a_broken_file_is_named_with_its_line(
    write: Callable[..., Path], file: str, content: str, line: str, said: str
) -> None:
    path = write({file: content})
    assert _error(path) == f"{path / file}{line}: {said}"


def test_a_file_that_is_no_text_is_one_line(write: Callable[..., Path]) -> None:
    path = write()
    (path / "unet" / "config.json").write_bytes(b"\xff\xfe")
    assert _error(path) == f"{path}/unet/config.json: cannot be read: UnicodeDecodeError"
    shutil.rmtree(path / "unet")
    (path / "model_index.json").unlink()
    (path / "model_index.json").mkdir()
    assert "has no model_index.json" in _error(path)


@pytest.mark.parametrize("class_name", [None, 1, ["my_pipeline", "Mine"], "", "A.B", 'X"; import os #', "a b", "class"])
def test_a_class_name_that_is_none_is_one_line(write: Callable[..., Path], class_name: object) -> None:
    path = write({"model_index.json": {**INDEX, "_class_name": class_name}})
    assert _error(path) == f"{path}/model_index.json: `_class_name` does not name a pipeline class"


@pytest.mark.parametrize("entry", [["diffusers", None], ["diffusers", 5], [None, "UNet2DConditionModel"]])
def test_a_part_of_half_a_name_is_one_line(write: Callable[..., Path], entry: object) -> None:
    path = write({"model_index.json": {**INDEX, "unet": entry}})
    assert _error(path) == f"{path}/model_index.json: 'unet' does not name a library and a class"


@pytest.mark.parametrize("entry", ["text", 5, {"a": 1}, [], ["a", "b", "c"], None, [1, 2]])
def test_what_names_no_part_is_passed_over(write: Callable[..., Path], entry: object) -> None:
    path = write({"model_index.json": {**INDEX, "extra": entry}})
    assert describe_directory(path).component("extra") is None


@pytest.mark.parametrize(
    ("name", "entry", "said"),
    [
        ('x"; import os #', ["diffusers", "A"], "cannot be the name of a component"),
        ("../escape", ["diffusers", "A"], "cannot be the name of a component"),
        ("pipeline", ["diffusers", "A"], "cannot be the name of a component"),
        ("extra", ["os; x", "A"], "is no class name"),
        ("extra", ["diffusers", "A()\nimport os"], "is no class name"),
    ],
)
def test_a_hostile_name_is_one_line(write: Callable[..., Path], name: str, entry: list[str], said: str) -> None:
    assert said in _error(write({"model_index.json": {**INDEX, name: entry}}))


def test_call_defaults_are_read_off_the_installed_diffusers() -> None:
    assert call_defaults("StableDiffusionPipeline")["num_inference_steps"] == 50
    assert call_defaults("StableDiffusionXLPipeline")["guidance_scale"] == 5.0
    assert call_defaults("NoSuchPipeline") == {}


def test_lifting_imports_no_torch(shapes_directory: Path) -> None:
    code = f"""
import sys
from diffopt.ir.description import build_module
from diffopt.ir.identity import print_module
from diffopt.ir.source_directory import describe_directory
print_module(build_module(describe_directory({str(shapes_directory)!r})))
print(sorted({{"torch", "diffusers", "transformers", "numpy", "libcst"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False, timeout=200)
    assert (done.stdout, done.stderr) == ("[]\n", "")
