"""Generated passes are kept by the hash of their code, and only a person promotes one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from diffopt.ir.errors import DiffoptError
from diffopt.llm.generated import GeneratedPass
from diffopt.llm.library import Library, Status, entry_of, promote, spelled_out

Written = Callable[..., GeneratedPass]


def stored(library: Library, written: GeneratedPass, status: Status = "candidate") -> GeneratedPass:
    library.add(written, entry_of(written, status, "", call="call-1", level=4, guards=("limits",)))
    return written


def test_what_is_added_reads_back(tmp_path: Path, written: Written) -> None:
    library = Library(tmp_path / "passes")
    assert list(library) == []
    right = stored(library, written("right"))
    found = library.get(right.id)
    assert found is not None
    assert found[0] == right
    assert (found[1].status, found[1].call, found[1].level, found[1].guards) == ("candidate", "call-1", 4, ("limits",))
    assert library.get("sha256:" + "0" * 64) is None
    assert library.get("../../etc/passwd") is None
    assert library.named("no-history") == found
    assert library.named(right.id[7:15]) == found


def test_code_that_was_changed_since_is_refused(tmp_path: Path, written: Written) -> None:
    library = Library(tmp_path)
    right = stored(library, written("right"))
    (tmp_path / f"{right.id[7:]}.py.txt").write_text("def transform(source):\n    return ''\n")
    with pytest.raises(DiffoptError, match="not the one its name says"):
        library.get(right.id)
    (tmp_path / f"{right.id[7:]}.json").write_text("{}")
    with pytest.raises(DiffoptError, match="cannot be read as a generated pass"):
        library.get(right.id)


def test_a_candidate_is_promoted_and_nothing_else(tmp_path: Path, written: Written) -> None:
    run, promoted = Library(tmp_path / "run"), Library(tmp_path / "promoted")
    right, wrong = stored(run, written("right")), stored(run, written("wrong-api"), "failed")
    assert promote("no-history", run, promoted) == right
    assert [entry.status for _, entry in promoted] == ["promoted"]
    assert promoted.get(right.id) is not None
    with pytest.raises(DiffoptError, match="wrong-api is no candidate: failed"):
        promote("wrong-api", run, promoted)
    assert promoted.get(wrong.id) is None
    with pytest.raises(DiffoptError, match=r"no generated pass is named 'other'; there: .*no-history"):
        promote("other", run, promoted)


def test_two_promoted_passes_have_two_names(tmp_path: Path, written: Written) -> None:
    run, promoted = Library(tmp_path / "run"), Library(tmp_path / "promoted")
    stored(run, written("right"))
    promote("no-history", run, promoted)
    other = Library(tmp_path / "other")
    stored(other, written("right", code="def transform(source: str) -> str:\n    return source\n"))
    with pytest.raises(DiffoptError, match="another pass is promoted as no-history"):
        promote("no-history", other, promoted)


def test_a_promoted_pass_takes_no_name_of_ours(tmp_path: Path, written: Written) -> None:
    run, promoted = Library(tmp_path / "run"), Library(tmp_path / "promoted")
    mine = written("right").model_copy(update={"name": "fuse-pipeline"})
    stored(run, mine)
    with pytest.raises(DiffoptError, match="a pass of diffopt is called fuse-pipeline already"):
        promote("fuse-pipeline", run, promoted)
    stored(promoted, mine, "promoted")
    assert spelled_out("fuse-pipeline", promoted) == "fuse-pipeline"
