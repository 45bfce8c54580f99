"""A corpus of scripts in the styles that real ones take, each with what it must come to."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path

import pytest

from diffopt.ir.description import PipelineDescription
from diffopt.ir.errors import DiffoptError
from diffopt.ir.source_script import describe_project

CORPUS = Path(__file__).parent / "corpus"
ENTRIES = {"two_pages": "app.py", "package_project": "studio/main.py", "module_attribute": "run.py"}
"""Projects of several files: the script that is run."""

SINGLE = sorted(p.name.removesuffix(".txt") for p in CORPUS.iterdir() if p.suffix in (".txt", ".ipynb"))
NAMES = [*SINGLE, *(f"{folder}/{script}" for folder, script in ENTRIES.items())]


def expected_file(name: str) -> Path:
    return CORPUS / f"{name.split('/')[0].partition('.')[0]}.json"


@pytest.fixture(scope="session")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lay the corpus out under the names its scripts have in life."""
    folder = tmp_path_factory.mktemp("corpus")
    for file in CORPUS.rglob("*"):
        if file.is_file() and file.suffix != ".json":
            target = folder / str(file.relative_to(CORPUS)).removesuffix(".txt")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    return folder


def seen(described: PipelineDescription, folder: Path) -> dict[str, object]:
    """Return what a description says of the script, without what follows from the pipeline's class alone."""
    scheduler = described.component("scheduler")
    found: dict[str, object] = {
        "name": described.name,
        "class": described.pipeline_class.removeprefix("diffusers."),
        "model": described.model,
        "steps": described.steps,
        "guidance": described.guidance,
        "size": [described.height, described.width],
        "batch": described.batch,
        "dtype": described.dtype,
        "negative_prompt": described.negative_prompt,
        "scheduler": scheduler.class_name.removeprefix("diffusers.") if scheduler else "",
        "inputs": [" ".join(filter(None, (i.name, i.kind, i.source))) for i in described.inputs],
        "adapters": [[a.kind, a.model, a.weight_name, a.name, a.scale, a.fused] for a in described.adapters],
        "present": [f"{p.target}.{p.name}" for p in described.present],
        "arguments": dict(described.arguments),
        "assumptions": [f"{a.name} {place(a.span, folder)}" for a in described.assumptions],
        "unknowns": [f"{u.name} {place(u.span, folder)}: {u.reason}" for u in described.unknowns],
    }
    return {key: value for key, value in found.items() if value not in ("", [], {}, 1)}


def place(span: object, folder: Path) -> str:
    text = str(span).replace(f"{folder}/", "")
    return ":".join(text.split(":")[:-2]) if text != "None" else ""


def lifted(name: str, folder: Path) -> object:
    try:
        return [seen(described, folder) for described in describe_project(folder / name)]
    except DiffoptError as error:
        return {"refused": str(error).replace(f"{folder}/", "")}


@cache
def expectation(name: str) -> object:
    return json.loads(expected_file(name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", NAMES)
def test_script_comes_to_what_stands_beside_it(name: str, scripts: Path) -> None:
    assert lifted(name, scripts) == expectation(name)


def test_the_corpus_is_as_large_as_it_should_be() -> None:
    assert len(NAMES) >= 60
