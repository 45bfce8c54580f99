from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from diffopt.cli import main
from diffopt.search.engine import Engine, Settings
from diffopt.search.store import Store
from diffopt.search.study.synthetic import Synthetic


@pytest.fixture
def place(tmp_path: Path) -> Path:
    problem = Synthetic(seed=1)
    with Store(tmp_path / "a.sqlite") as store:
        settings = Settings(rounds=1, offspring=4)
        engine = Engine(problem.module, store, run_id="search", space=problem, settings=settings)
        for _ in range(3):
            asked = engine.ask()
            assert asked is not None
            engine.tell(asked, problem.evaluate(asked))
        engine.ask()
    return tmp_path / "a.sqlite"


def test_only_the_store_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["store", "list"])
    assert capsys.readouterr().err.startswith("diffopt store: the following arguments are required: STORE;")


def test_runs_are_listed(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["store", "list", str(place), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["runs"]
    assert (row["run"], row["measured"], row["failed"], row["pending"]) == ("search", 3, 0, 1)


def test_a_manifest_from_elsewhere_does_not_write_to_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Store(tmp_path / "a.sqlite") as store:
        store.open_run("search", {"target": "cpu\x1b[2J\ud800\n"})
    assert main(["store", "list", str(tmp_path / "a.sqlite")]) == 0
    printed = capsys.readouterr().out
    assert "cpu?[2J??" in printed
    assert printed.count("\n") == 1


def test_the_folder_of_a_run_stands_for_its_store(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = place.with_name("out.run")
    folder.mkdir()
    place.rename(folder / "store.sqlite")
    assert main(["store", "list", str(folder)]) == 0
    assert capsys.readouterr().out.startswith("search")
    assert main(["store", "merge", str(folder.with_name("b.sqlite")), str(folder)]) == 0


def test_a_run_goes_through_a_document_and_by_merging(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document, other = place.with_name("runs.json"), str(place.with_name("b.sqlite"))
    assert main(["store", "export", str(place), "--run", "search", "-o", str(document)]) == 0
    assert main(["store", "import", other, str(document)]) == 0
    assert "1 runs and 3 trials added" in capsys.readouterr().out
    assert main(["store", "merge", other, str(place)]) == 0
    assert "0 trials added, 3 known already" in capsys.readouterr().out


def test_what_is_missing_is_said_in_one_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["list", "/no/store"], ["import", str(place)], ["import", str(place), "/no/file"]):
        assert main(["store", *command]) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1


@pytest.mark.parametrize("action", ["list", "export", "import", "merge"])
@pytest.mark.parametrize("content", [b"", b"my notes", b"SQLite format 3\0" + b"\0" * 4096])
def test_what_is_no_store_is_left_alone(
    tmp_path: Path, place: Path, capsys: pytest.CaptureFixture[str], action: str, content: bytes
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    file = folder / "notes.txt"
    file.write_bytes(content)
    assert main(["store", action, str(file), *([str(place)] if action in ("import", "merge") else [])]) == 2
    assert "not a diffopt store" in capsys.readouterr().err
    assert list(folder.iterdir()) == [file]
    assert file.read_bytes() == content


def test_an_export_overwrites_nothing_least_of_all_the_store(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = place.read_bytes()
    assert main(["store", "export", str(place), "-o", str(place)]) == 2
    assert "already exists" in capsys.readouterr().err
    assert place.read_bytes() == before


BROKEN: list[dict[str, object]] = [
    {"predicted": 10**400}, {"predicted": "fast"}, {"facts": {"a": "b"}}, {"facts": [1]}, {"trace": ["a"]}, {"key": None},
    {"trace": "a\x1b]0;title\x07"}, {"origin": "\ud800"}, {"outcome": []}, {"outcome": {"version": 1, "status": "measured"}},
]  # fmt: skip


@pytest.mark.parametrize("change", BROKEN, ids=str)
def test_of_a_broken_document_nothing_is_imported(
    place: Path, capsys: pytest.CaptureFixture[str], change: dict[str, object]
) -> None:
    document, other = place.with_name("runs.json"), str(place.with_name("b.sqlite"))
    assert main(["store", "export", str(place), "-o", str(document)]) == 0
    data = json.loads(document.read_text())
    data["runs"][0]["trials"][-1].update(change)
    document.write_text(json.dumps(data))
    assert main(["store", "import", other, str(document)]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert main(["store", "list", other, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"] == []


def test_facts_nested_as_deep_as_json_is_read_are_one_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document, other = place.with_name("runs.json"), str(place.with_name("b.sqlite"))
    assert main(["store", "export", str(place), "-o", str(document)]) == 0
    for change in ('"facts": {"a": ', '"manifest": {"a": '):
        deep = re.sub(f"{change.split(':')[0]}: {{", f"{change}{'[' * 900}{']' * 900}, ", document.read_text())
        document.with_name("deep.json").write_text(deep)
        assert main(["store", "import", other, str(document.with_name("deep.json"))]) in (0, 2)
        assert len(capsys.readouterr().err.strip().splitlines()) <= 1


def test_a_document_nested_without_end_is_one_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = place.with_name("deep.json")
    document.write_text("[" * 100_000)
    assert main(["store", "import", str(place), str(document)]) == 2
    assert "cannot be read as JSON" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE run SET manifest = '{'",
        "UPDATE run SET manifest = '[]'",
        "UPDATE outcome SET json = '[]'",
        "UPDATE candidate SET facts = '[]'",
        "UPDATE candidate SET facts = '{'",
        pytest.param(f"UPDATE candidate SET facts = '{'[' * 100_000}'", id="facts nested without end"),
    ],
)
def test_a_store_of_broken_rows_is_one_line(place: Path, capsys: pytest.CaptureFixture[str], change: str) -> None:
    with closing(sqlite3.connect(place)) as db:
        db.execute(change)
        db.commit()
    for action in ("list", "export"):
        assert main(["store", action, str(place)]) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
