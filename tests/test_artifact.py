from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from diffopt.artifact import Artifact, write_artifact
from diffopt.comparison import side
from diffopt.explain import explain
from diffopt.ir.errors import DiffoptError

MANIFEST: dict[str, Any] = {
    "diffopt": "0.1.0", "versions": {"torch": "2.13.0"}, "target": "cpu", "source": {}, "workload": {}, "thresholds": {},
    "baseline_ir": "", "trace": "", "result": {}, "engines": [], "steps": [],
}  # fmt: skip


def written(out: Path) -> Artifact:
    return write_artifact(out, MANIFEST, {"pipeline.py": "MODEL = ''\n"}, {"engines": [], "images": []})


def test_what_was_written_opens_and_an_older_one_goes_whole(tmp_path: Path) -> None:
    out = tmp_path / "out"
    written(out)
    (out / "old.txt").touch()
    written(out)
    assert Artifact.open(out).manifest["trace"] == ""
    assert sorted(path.name for path in out.iterdir()) == ["engines", "images", "manifest.json", "pipeline.py"]
    assert list(tmp_path.iterdir()) == [out]


def test_what_came_into_the_way_stays_and_so_does_the_artifact(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_text("mine")
    with pytest.raises(DiffoptError, match="has come into the way") as raised:
        written(out)
    assert out.read_text() == "mine"
    draft = next(path for path in tmp_path.iterdir() if path != out)
    assert str(draft) in str(raised.value)
    assert Artifact.open(draft).manifest["target"] == "cpu"


@pytest.mark.parametrize(
    "change",
    [
        {"files": [1]}, {"files": {"pipeline.py": 5}}, {"versions": 3}, {"versions": {"torch": 5}}, {"target": ["cpu"]},
        {"workload": None}, {"baseline_ir": 5}, {"result": []}, {"engines": "all"},
    ],
)  # fmt: skip
def test_a_manifest_of_wrong_types_is_one_line(tmp_path: Path, change: dict[str, Any]) -> None:
    out = tmp_path / "out"
    written(out)
    manifest = json.loads((out / "manifest.json").read_text())
    (out / "manifest.json").write_text(json.dumps(manifest | change))
    with pytest.raises(DiffoptError, match=r"manifest"):
        Artifact.open(out)


def test_a_file_that_the_manifest_no_longer_names_is_still_checked(tmp_path: Path) -> None:
    out = tmp_path / "out"
    written(out)
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["files"] = {"../../etc/passwd": "0"}
    (out / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DiffoptError, match=r"pipeline\.py is not the file that was measured"):
        Artifact.open(out)


@pytest.mark.parametrize("model", ["nowhere", "./nowhere", "no/where"])
def test_a_model_that_is_not_there_is_one_line(tmp_path: Path, model: str) -> None:
    with pytest.raises(DiffoptError, match=f"^{model}: no such model directory; "):
        written(tmp_path / "out").load(model=model)


@pytest.mark.parametrize("outside", ["ignore", "", None])
def test_calls_outside_an_engine_are_answered_or_refused_and_nothing_else(tmp_path: Path, outside: Any) -> None:
    with pytest.raises(DiffoptError, match="give torch or raise"):
        written(tmp_path / "out").load(outside=outside)


@pytest.mark.parametrize(
    "change", [{"workload": {"prompts": []}}, {"steps": [{}]}, {"engines": ["../../elsewhere"]}, {"result": {}}]
)
def test_a_manifest_that_explains_nothing_is_one_line(tmp_path: Path, change: dict[str, Any]) -> None:
    out = tmp_path / "out"
    written(out)
    manifest = json.loads((out / "manifest.json").read_text())
    (out / "manifest.json").write_text(json.dumps(manifest | change))
    with pytest.raises(DiffoptError, match="the manifest cannot be used"):
        explain(out)


def test_an_artifact_without_a_workload_cannot_be_raced(tmp_path: Path) -> None:
    written(tmp_path / "out")
    with pytest.raises(DiffoptError, match="workload cannot be used"):
        side(str(tmp_path / "out"), {})
