from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffopt.ir.errors import DiffoptError
from diffopt.search.store import Store
from diffopt.session import run_folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def started(out: Path) -> Path:
    """Leave the folder of a run that was stopped."""
    folder = run_folder(out, resume=False, force=False)
    Store(folder / "store.sqlite").close()
    (folder / "work").mkdir()
    return folder


def artifact(out: Path) -> None:
    out.mkdir()
    (out / "manifest.json").write_text(json.dumps({"format": 1, "diffopt": "0.1.0", "trace": ""}))


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("force", [True, False])
def test_what_is_no_artifact_is_never_replaced(out: Path, resume: bool, force: bool) -> None:
    started(out)
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    with pytest.raises(DiffoptError, match="already exists"):
        run_folder(out, resume=resume, force=force)
    assert (out / "thesis.txt").read_text() == "years of work"


def test_a_file_or_a_dangling_link_in_the_way_is_never_replaced(out: Path) -> None:
    out.symlink_to(out.with_name("nowhere"))
    with pytest.raises(DiffoptError, match="already exists"):
        run_folder(out, resume=False, force=True)


def test_an_artifact_is_replaced_only_by_force(out: Path) -> None:
    artifact(out)
    with pytest.raises(DiffoptError, match="--force to replace it"):
        run_folder(out, resume=False, force=False)
    assert run_folder(out, resume=False, force=True).is_dir()


def test_a_folder_that_is_no_run_is_never_deleted(out: Path) -> None:
    folder = out.with_name("out.run")
    folder.mkdir()
    (folder / "precious.txt").write_text("mine")
    with pytest.raises(DiffoptError, match="is no run of diffopt"):
        run_folder(out, resume=False, force=True)
    assert (folder / "precious.txt").read_text() == "mine"


def test_a_run_that_goes_on_is_not_started_again(out: Path) -> None:
    folder = started(out)
    with Store(folder / "store.sqlite"), pytest.raises(DiffoptError, match="a run is going on there"):
        run_folder(out, resume=False, force=True)
    assert list(run_folder(out, resume=False, force=True).iterdir()) == []


def test_a_stopped_run_asks_what_to_do(out: Path) -> None:
    folder = started(out)
    with pytest.raises(DiffoptError, match="--resume to go on with it, or --force"):
        run_folder(out, resume=False, force=False)
    assert run_folder(out, resume=True, force=False) == folder


@pytest.mark.parametrize("name", [".", "", "/", ".."])
def test_a_folder_without_a_name_of_its_own_is_one_line(name: str) -> None:
    with pytest.raises(DiffoptError, match="a folder of its own is needed"):
        run_folder(Path(name), resume=False, force=True)
