from __future__ import annotations

import json
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


def test_runs_are_listed(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["store", "list", str(place), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["runs"]
    assert (row["run"], row["measured"], row["failed"], row["pending"]) == ("search", 3, 0, 1)


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
