from __future__ import annotations

import dataclasses
import json
import multiprocessing
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
import torch

from diffopt.backends.base import (
    JSON,
    Axis,
    BackendError,
    Capabilities,
    EngineKey,
    EngineOptions,
    Part,
    Program,
    Run,
)
from diffopt.backends.export_folder import MANIFEST, export_parts, load_exported
from diffopt.backends.openvino import OpenVinoBuilder

KEY = EngineKey("openvino", "weights", [], [], {}, {}, "cpu-0")


class Scale(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.arange(1.0, 5.0))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        return (x * self.weight,)


PART = Part("scale", Scale().eval(), (torch.ones(2, 4),), ("x",), (True,), ({0: Axis("batch", 1, 2, 3)},))


def export(out: Path, key: EngineKey = KEY, *, replace: bool = False) -> bool:
    (made,) = export_parts(
        [PART], OpenVinoBuilder(), EngineOptions(), out, key_of=lambda part: key, about={"source": "test"},
        replace=replace, say=lambda name: None,
    )  # fmt: skip
    return made.built


def test_the_manifest_says_what_an_engine_takes_and_how_far_it_is_off(tmp_path: Path) -> None:
    assert export(tmp_path)
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    (row,) = manifest["components"]
    assert row["inputs"] == [{"name": "x", "dtype": "float32", "shape": ["batch", 4]}]
    assert row["open"] == {"batch": [1, 2, 3]}
    assert [check["sizes"] for check in row["facts"]["checks"]] == [{"batch": 2}, {"batch": 1}, {"batch": 3}]
    assert manifest["backend"] == "openvino"


def test_what_was_exported_loads_and_runs(tmp_path: Path) -> None:
    export(tmp_path)
    (found,) = load_exported(tmp_path)["scale"]((torch.ones(3, 4),))
    assert torch.equal(found, torch.arange(1.0, 5.0).expand(3, 4))


def test_engines_that_are_there_are_kept_and_others_replaced_only_when_asked(tmp_path: Path) -> None:
    other = EngineKey("openvino", "other", [], [], {}, {}, "cpu-0")
    assert export(tmp_path)
    assert not export(tmp_path)
    with pytest.raises(BackendError, match="holds another engine"):
        export(tmp_path, other)
    assert export(tmp_path, other, replace=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [MANIFEST, "scale"]


def test_components_that_were_exported_before_stay_in_the_manifest(tmp_path: Path) -> None:
    from diffopt.backends.onnxruntime import OnnxRuntimeBuilder

    export(tmp_path)
    again = dataclasses.replace(PART, name="again")
    export_parts(
        [again], OnnxRuntimeBuilder(), EngineOptions(), tmp_path, key_of=lambda part: KEY, about={"source": "test"},
        replace=False, say=lambda name: None,
    )  # fmt: skip
    rows = json.loads((tmp_path / MANIFEST).read_text())["components"]
    assert [(row["name"], row.get("backend")) for row in rows] == [("scale", "openvino"), ("again", None)]
    found = load_exported(tmp_path)
    inputs = (torch.ones(3, 4),)
    assert torch.equal(found["scale"](inputs)[0], found["again"](inputs)[0])
    export(tmp_path)  # what is exported again takes its old place
    assert [row["name"] for row in json.loads((tmp_path / MANIFEST).read_text())["components"]] == ["scale", "again"]


class Copying:
    """A builder whose engines return what they are given; so small that a test can make many."""

    name = "copying"
    packages: tuple[str, ...] = ()
    capabilities = Capabilities(("f32",))

    def available(self) -> str | None:
        return None

    def build(self, part: Part, folder: Path, options: EngineOptions) -> dict[str, JSON]:
        (folder / "engine.txt").write_text(part.name)
        return {}

    def build_program(self, program: Program, folder: Path, options: EngineOptions) -> dict[str, JSON]:
        raise NotImplementedError

    def load(self, folder: Path, options: EngineOptions) -> Run:
        return lambda inputs: inputs


def export_copies(names: list[str], out: Path, begin: Barrier) -> None:
    begin.wait()
    export_parts(
        [dataclasses.replace(PART, name=name) for name in names], Copying(), EngineOptions(), out,
        key_of=lambda part: KEY, about={}, replace=False, say=lambda name: None,
    )  # fmt: skip


def test_two_processes_that_export_into_one_folder_lose_no_row(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    begin = context.Barrier(2)
    names = [[f"{letter}{index}" for index in range(25)] for letter in "ab"]
    processes = [context.Process(target=export_copies, args=(given, tmp_path, begin)) for given in names]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    rows = json.loads((tmp_path / MANIFEST).read_text())["components"]
    assert sorted(row["name"] for row in rows) == sorted(names[0] + names[1])
    assert not list(tmp_path.glob(".*"))


def test_a_damaged_engine_is_not_served(tmp_path: Path) -> None:
    export(tmp_path)
    (tmp_path / "scale" / "model.bin").write_bytes(b"")
    with pytest.raises(BackendError, match="damaged"):
        load_exported(tmp_path)
    assert export(tmp_path)


def test_a_folder_without_engines_says_what_makes_one(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="diffopt export makes such a folder"):
        load_exported(tmp_path)


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("mine", ["scale/weights.bin", "scale", MANIFEST])
def test_what_stands_there_and_is_no_engine_stays(tmp_path: Path, mine: str, *, replace: bool) -> None:
    file = tmp_path / mine
    file.parent.mkdir(exist_ok=True)
    file.write_text('{"mine": 1}')
    with pytest.raises(BackendError, match=r"is no engine|not of exported engines"):
        export(tmp_path, replace=replace)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file]
    assert file.read_text() == '{"mine": 1}'


@pytest.mark.parametrize("files", [{"/dev/zero": ""}, {"../../secret": ""}, ["weights"], 5, None])
def test_an_engine_names_no_file_outside_its_folder(tmp_path: Path, files: object) -> None:
    export(tmp_path)
    place = tmp_path / "scale" / "engine.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | {"files": files}))
    with pytest.raises(BackendError, match=r"outside the folder|cannot be read"):
        load_exported(tmp_path)


BROKEN: dict[str, tuple[str, object]] = {
    "no list": ("components", 5),
    "no names": ("components", [{}]),
    "a folder elsewhere": ("components", [{"name": "../e/scale"}]),
    "an absolute place": ("components", [{"name": "/etc"}]),
    "itself": ("components", [{"name": "."}]),
    "unknown options": ("options", {"precision": "f32", "zz": 1}),
    "no options": ("options", None),
    "no backend": ("backend", ["openvino"]),
    "another format": ("format", 9),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_manifest_that_names(tmp_path: Path, name: str) -> None:
    out, (key, value) = tmp_path / "e", BROKEN[name]
    export(out)
    path = out / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    for use in (load_exported, export):
        with pytest.raises(BackendError, match=MANIFEST):
            use(out)


@pytest.mark.parametrize("text", ["[1]", "[" * 100_000, "{}", "\x00"])
def test_a_manifest_that_is_none_is_said_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST).write_text(text)
    for use in (load_exported, export):
        with pytest.raises(BackendError, match=MANIFEST):
            use(tmp_path)


@pytest.mark.parametrize(("key", "value"), [("files", {}), ("files", [[1, 2]]), ("files", {"a\0": "x"}), ("key", None)])
def test_an_engine_that_does_not_list_its_files_is_not_loaded(tmp_path: Path, key: str, value: object) -> None:
    export(tmp_path)
    path = tmp_path / "scale" / "engine.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(BackendError, match="export it again"):
        load_exported(tmp_path)
    assert export(tmp_path)
