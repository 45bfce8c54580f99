"""Patches of the corpus: nothing where nothing is asked, and else what git takes, both ways, once."""

from __future__ import annotations

import ast
import difflib
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.description import build_module
from diffopt.ir.emit_edits import apply_edits, emit_project_edits
from diffopt.ir.script_patch import patch_root, project_patch
from diffopt.ir.script_project import NOTEBOOK
from diffopt.ir.source_script import describe_project
from diffopt.passes.pipeline import Trace, run

CORPUS = Path(__file__).parent / "corpus"
ENTRIES = {"two_pages": "app.py", "package_project": "studio/main.py", "module_attribute": "run.py"}
CLASSES = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")
PASSES = "reduce-steps{steps=10},export{backend=openvino}"
BOUGHT = {"reduce-steps": "2.4x, 31 dB", "export": "1.3x"}


def described(file: Path) -> list[dict[str, object]]:
    data = json.loads(file.read_text(encoding="utf-8"))
    return data if isinstance(data, list) else []


def names() -> list[tuple[str, list[dict[str, object]]]]:
    found = []
    for file in sorted(CORPUS.glob("*.json")):
        script = next((p for p in (f"{file.stem}.py", f"{file.stem}.ipynb") if _stored(p)), "")
        found.append((script or f"{file.stem}/{ENTRIES[file.stem]}", described(file)))
    return found


def _stored(name: str) -> bool:
    return (CORPUS / name).exists() or (CORPUS / f"{name}.txt").exists()


LIFTED = [name for name, pipelines in names() if pipelines and not any(p.get("unknowns") for p in pipelines)]
PATCHED = [
    name
    for name, pipelines in names()
    if name in LIFTED and len(pipelines) == 1 and pipelines[0]["class"] in CLASSES and not pipelines[0].get("inputs")
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for file in CORPUS.rglob("*"):
        if file.is_file() and file.suffix != ".json":
            target = tmp_path / str(file.relative_to(CORPUS)).removesuffix(".txt")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    return tmp_path


def modules(path: Path) -> list[ModuleOp]:
    return [
        build_module(replace(one, height=one.height or 512, width=one.width or 512)) for one in describe_project(path)
    ]


def optimized(path: Path, passes: str = PASSES) -> ModuleOp:
    """Apply passes one after the other, leaving out those that refuse."""
    module = modules(path)[0]
    for part in Trace.parse(passes):
        after = run(Trace((part,)), module)
        module = after if isinstance(after, ModuleOp) else module
    return module


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("name", LIFTED)
def test_without_passes_every_file_comes_back_byte_for_byte(name: str, folder: Path) -> None:
    for module in modules(folder / name):
        assert emit_project_edits(module, folder / name, pipeline="") == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", PATCHED)
def test_a_patch_parses_applies_reverses_and_is_made_once(name: str, folder: Path) -> None:
    script = folder / name
    before = contents(folder)
    module = optimized(script)
    edits = emit_project_edits(module, script, bought=BOUGHT)
    patch = project_patch(edits, script)
    assert any(f"# diffopt: {label} ({text})" in patch for label, text in BOUGHT.items())
    (folder / "changes.patch").write_bytes(patch.encode())
    git = ["git", "-c", "core.autocrlf=false", "apply", "--whitespace=nowarn", str(folder / "changes.patch")]
    place = patch_root(edits, script)
    subprocess.run(git, cwd=place, check=True)
    for path in edits:
        text = Path(path).read_text(encoding="utf-8")
        if path.endswith(NOTEBOOK):
            json.loads(text)
        else:
            ast.parse(text)
    assert emit_project_edits(module, script, bought=BOUGHT) == {}
    assert emit_project_edits(module, script) == {}
    subprocess.run([*git, "-R"], cwd=place, check=True)
    (folder / "changes.patch").unlink()
    assert contents(folder) == before


def test_the_module_that_builds_and_the_one_that_calls_are_both_edited(folder: Path) -> None:
    script = folder / "two_pages" / "app.py"
    edits = emit_project_edits(optimized(script, "reduce-steps{steps=10}"), script)
    assert {Path(path).relative_to(folder / "two_pages").as_posix() for path in edits} == {
        "app.py",
        "pipelines/loader.py",
    }


def test_a_notebook_keeps_every_byte_but_the_cells_that_change(folder: Path) -> None:
    script = folder / "colab_sdxl.ipynb"
    before = script.read_text(encoding="utf-8")
    edits = emit_project_edits(optimized(script, "reduce-steps{steps=10}"), script)[str(script)]
    after = apply_edits(before, edits)
    changed = [line for line in difflib.ndiff(before.splitlines(), after.splitlines()) if line[0] in "+-"]
    gone = [line for line in changed if line[0] == "-"]
    assert any("num_inference_steps=28" in line for line in gone)
    # the last line of a cell has no line end; with one more behind it, it gets one
    assert {line for line in gone if "=28" not in line} == {'-     "pipe.enable_vae_slicing()"'}
