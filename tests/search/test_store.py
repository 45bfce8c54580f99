from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from diffopt.bench.outcome import Failed, Measured
from diffopt.ir.errors import DiffoptError
from diffopt.search.records import Attempt, Candidate, Proposal
from diffopt.search.store import MEMORY, Store
from diffopt.search.store_schema import APPLICATION_ID, MIGRATIONS, migrate

OLD = Path(__file__).parent / "assets" / "store-1.sql"


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "s.sqlite" if request.param == "file" else MEMORY, clock=lambda: 1.0) as opened:
        opened.open_run("r", {"model": "m"})
        yield opened


def add(store: Store, key: str, run: str = "r") -> Candidate:
    return store.add_candidate(run, trace=f"pass-{key}", key=key, origin="test", facts={"steps": 4.0}, predicted=0.25)


def test_opening_a_run_again_gives_its_first_manifest(store: Store) -> None:
    assert store.open_run("r", {"model": "another"}) == {"model": "m"}
    assert store.runs() == {"r": {"model": "m"}}


def test_a_candidate_is_pending_until_told(store: Store, outcome: Callable[..., Measured]) -> None:
    first, second = add(store, "a"), add(store, "b")
    assert (first.id, second.id) == (1, 2)
    assert store.pending("r") == (first, second)
    store.tell("r", second.id, outcome(3.0))
    assert store.pending("r") == (first,)
    assert store.candidates("r") == (first, second)


def test_trials_come_back_in_the_order_of_telling_and_unchanged(store: Store, outcome: Callable[..., Measured]) -> None:
    first, second = add(store, "a"), add(store, "b")
    store.tell("r", second.id, outcome(3.0, 41.5, 0.9))
    store.tell("r", first.id, Failed("crash", "the worker died", "log"))
    trials = store.trials("r")
    assert [t.candidate for t in trials] == [second, first]
    assert [t.outcome for t in trials] == [outcome(3.0, 41.5, 0.9), Failed("crash", "the worker died", "log")]
    assert trials[0].candidate.facts == {"steps": 4.0}
    assert trials[0].candidate.predicted == 0.25


def test_no_two_candidates_of_a_run_share_a_key(store: Store) -> None:
    add(store, "a")
    with pytest.raises(ValueError, match="already has a candidate"):
        add(store, "a")
    store.open_run("other", {})
    assert add(store, "a", run="other").id == 1


def test_an_outcome_is_told_once_and_only_of_a_known_candidate(store: Store, outcome: Callable[..., Measured]) -> None:
    candidate = add(store, "a")
    store.tell("r", candidate.id, outcome(2.0))
    with pytest.raises(ValueError, match="told before"):
        store.tell("r", candidate.id, outcome(3.0))
    with pytest.raises(ValueError, match="no candidate 7"):
        store.tell("r", 7, outcome(3.0))
    assert [t.outcome for t in store.trials("r")] == [outcome(2.0)]


def test_proposals_are_unknown_until_the_proposers_were_asked(store: Store) -> None:
    assert store.proposals("r") is None
    offered = Proposal("pass-a", "a", "rules", {"steps": 2.0})
    refused = Attempt("pass-b", "rules", "no UNet", "@unet", "wrong-kind")
    store.add_proposals("r", [offered], [refused])
    store.add_attempt("r", Attempt("pass-c", "llm", "not text"))
    assert store.proposals("r") == (offered,)
    assert store.attempts("r") == (refused, Attempt("pass-c", "llm", "not text"))
    assert store.candidates("r") == ()


def test_asking_no_proposer_is_remembered_too(store: Store) -> None:
    store.add_proposals("r", [], [])
    assert store.proposals("r") == ()


def test_everything_told_is_there_after_closing(tmp_path: Path, outcome: Callable[..., Measured]) -> None:
    with Store(tmp_path / "s") as store:
        store.open_run("r", {})
        store.tell("r", add(store, "a").id, outcome(2.0))
        pending = add(store, "b")
    with Store(tmp_path / "s") as store:
        assert [t.outcome for t in store.trials("r")] == [outcome(2.0)]
        assert store.pending("r") == (pending,)


def test_raw_samples_can_be_read_with_sql(tmp_path: Path, outcome: Callable[..., Measured]) -> None:
    with Store(tmp_path / "s") as store:
        store.open_run("r", {})
        store.tell("r", add(store, "a").id, outcome(4.0))
        store.tell("r", add(store, "b").id, Failed("crash", "no"))
    reader = sqlite3.connect(tmp_path / "s")
    ((sequence, samples),) = reader.execute("SELECT sequence, samples FROM outcome").fetchall()
    assert json.loads(samples) == [0.25] * 5
    assert reader.execute("SELECT sequence, kind FROM failure").fetchall() == [(sequence + 1, "crash")]


def test_a_file_of_another_kind_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("these are not the rows you are looking for" * 50)
    with pytest.raises(DiffoptError, match=r"notes\.txt: the store is not a diffopt store") as raised:
        Store(tmp_path / "notes.txt")
    assert "\n" not in str(raised.value)


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    foreign = sqlite3.connect(tmp_path / "their.db")
    foreign.execute("CREATE TABLE theirs (a)")
    foreign.commit()
    with pytest.raises(DiffoptError, match="belongs to another program"):
        Store(tmp_path / "their.db")
    assert foreign.execute("SELECT COUNT(*) FROM sqlite_master").fetchone() == (1,)


@pytest.mark.parametrize("place", ["missing/s.sqlite", "."])
def test_a_path_that_cannot_hold_a_store_is_refused(tmp_path: Path, place: str) -> None:
    with pytest.raises(DiffoptError, match="cannot be opened"):
        Store(tmp_path / place)


def test_a_store_has_one_writer(tmp_path: Path) -> None:
    with Store(tmp_path / "s"), pytest.raises(DiffoptError, match="in use by another diffopt process"):
        Store(tmp_path / "s")
    Store(tmp_path / "s").close()


def test_readers_are_not_kept_out(tmp_path: Path) -> None:
    with Store(tmp_path / "s") as store:
        store.open_run("r", {})
        assert sqlite3.connect(tmp_path / "s").execute("SELECT id FROM run").fetchall() == [("r",)]


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path: Path, outcome: Callable[..., Measured]) -> None:
    with Store(tmp_path / "s") as store:
        store.open_run("r", {})
        store.tell("r", add(store, "a").id, outcome(2.0))
        store._db.execute("PRAGMA max_page_count = 1")
        with pytest.raises(DiffoptError, match="the disk is full"):
            store.add_attempt("r", Attempt("pass-a" * 10000, "rules", "long"))
    with Store(tmp_path / "s") as store:
        assert len(store.trials("r")) == 1


def test_a_newer_store_is_refused(tmp_path: Path) -> None:
    Store(tmp_path / "s").close()
    newer = sqlite3.connect(tmp_path / "s")
    newer.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    newer.commit()
    newer.close()
    with pytest.raises(DiffoptError, match="upgrade diffopt"):
        Store(tmp_path / "s")


def test_an_outcome_of_a_later_version_is_one_line(tmp_path: Path, outcome: Callable[..., Measured]) -> None:
    with Store(tmp_path / "s") as store:
        store.open_run("r", {})
        store.tell("r", add(store, "a").id, outcome(2.0))
        store._db.execute("UPDATE outcome SET json = json_set(json, '$.version', 99)")
        with pytest.raises(DiffoptError, match="version 99"):
            store.trials("r")


def old_store(path: Path) -> Path:
    connection = sqlite3.connect(path)
    connection.executescript(OLD.read_text(encoding="utf-8"))
    connection.close()
    return path


def test_a_store_of_version_1_is_read(tmp_path: Path) -> None:
    with Store(old_store(tmp_path / "s")) as store:
        assert store.runs() == {"search": {"module": "0123456789abcdef", "seed": 3}}
        told, failed = store.trials("search")
        assert isinstance(told.outcome, Measured)
        assert told.outcome.latency.ratio == 2.0
        assert isinstance(failed.outcome, Failed)
        assert [c.id for c in store.pending("search")] == [3]
        assert store.attempts("search")[0].rule == "cache-needs-torch"


def test_a_later_version_is_reached_step_by_step(tmp_path: Path) -> None:
    connection = sqlite3.connect(old_store(tmp_path / "s"), isolation_level=None)
    steps = (*MIGRATIONS, "ALTER TABLE run ADD COLUMN host TEXT", "UPDATE run SET host = 'here'")
    migrate(connection, steps, APPLICATION_ID, "s")
    assert connection.execute("SELECT id, host FROM run").fetchall() == [("search", "here")]
    assert connection.execute("PRAGMA user_version").fetchone() == (len(steps),)
    connection.close()


def test_a_step_that_breaks_leaves_the_version_before_it(tmp_path: Path) -> None:
    connection = sqlite3.connect(old_store(tmp_path / "s"), isolation_level=None)
    with pytest.raises(sqlite3.Error):
        migrate(connection, (*MIGRATIONS, "ALTER TABLE run ADD COLUMN host TEXT; SELECT no"), APPLICATION_ID, "s")
    assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
    assert "host" not in [row[1] for row in connection.execute("PRAGMA table_info(run)")]
    connection.close()
    Store(tmp_path / "s").close()
