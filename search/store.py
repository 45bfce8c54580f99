"""The store of a search: SQLite, one writer, every measurement written down before the next is asked for."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from diffopt.ir.errors import DiffoptError
from diffopt.search.records import Attempt, Candidate, Proposal, Trial
from diffopt.search.store_schema import APPLICATION_ID, MIGRATIONS, migrate, store_error

if TYPE_CHECKING:
    from diffopt.bench.outcome import Outcome
    from diffopt.ir.description import JSON

MEMORY = ":memory:"


class TrialStore(Protocol):
    """What the engine needs of a store.

    *Ownership.* One process writes to a store at a time and one thread uses an instance; any number may read the file
    behind it. A run is named by its id; ids of candidates count from 1 within it.

    *Life of a candidate.* `add_candidate` makes it pending; `tell` ends that, once and for good. There is no third
    state: a process that dies between the two leaves the candidate pending, and the next one finds it in `pending` with
    the same id. What a method has returned from is on disk.

    *What never changes.* Records handed out are values; a told outcome is neither changed nor removed. Within a run no
    two candidates share a key. Attempts and proposals are kept apart from candidates, so no refused program is ever
    taken for a measured one.
    """

    def open_run(self, run_id: str, manifest: Mapping[str, JSON]) -> dict[str, JSON]:
        """Create the run, or find it; return the manifest it was created with."""

    def add_candidate(
        self, run_id: str, *, trace: str, key: str, origin: str, facts: Mapping[str, float], predicted: float | None
    ) -> Candidate:
        """Write down a new pending candidate.

        Raises:
            ValueError: the run already has a candidate with this key.
        """

    def tell(self, run_id: str, candidate_id: int, outcome: Outcome) -> None:
        """Write down what came of a pending candidate.

        Raises:
            ValueError: there is no such candidate, or it was told before.
        """

    def candidates(self, run_id: str) -> tuple[Candidate, ...]:
        """Return all candidates, pending ones included, by id."""

    def pending(self, run_id: str) -> tuple[Candidate, ...]:
        """Return candidates asked for but not told, by id."""

    def trials(self, run_id: str) -> tuple[Trial, ...]:
        """Return told candidates with their outcomes, in the order of telling."""

    def add_proposals(self, run_id: str, proposals: Sequence[Proposal], refused: Sequence[Attempt]) -> None:
        """Write down at once what all proposers said; `proposals` then answers instead of `None`."""

    def proposals(self, run_id: str) -> tuple[Proposal, ...] | None:
        """Return what the proposers said, in order, or `None` where they were not asked yet."""

    def add_attempt(self, run_id: str, attempt: Attempt) -> None:
        """Write down a program that was refused before measuring."""

    def attempts(self, run_id: str) -> tuple[Attempt, ...]:
        """Return the refused programs in order."""


class Store:
    """A `TrialStore` in an SQLite file, or in memory at ``":memory:"``.

    Write-ahead log with ``synchronous=FULL``: a commit survives a power cut, at a few milliseconds against the seconds
    that a measurement takes. The writer holds a lock beside the file (``<path>-writer``) that the operating system
    frees when the process dies, however it dies; readers are not kept out.

    Raises:
        DiffoptError: the file cannot be opened or written, is not a store, is in use, or is newer than this diffopt.
    """

    def __init__(self, path: Path | str, *, clock: Callable[[], float] = time.time) -> None:
        self.path = str(path)
        self._clock = clock
        self._lock: sqlite3.Connection | None = None
        self._connection: sqlite3.Connection | None = None
        try:
            with self._explained():
                self._open()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Release the file; the store cannot be used afterwards."""
        for connection in (self._connection, self._lock):
            if connection is not None:
                connection.close()
        self._connection = self._lock = None

    def open_run(self, run_id: str, manifest: Mapping[str, JSON]) -> dict[str, JSON]:
        """See `TrialStore`."""
        with self._transaction() as db:
            db.execute(
                "INSERT OR IGNORE INTO run (id, manifest, created) VALUES (?, ?, ?)",
                (run_id, _dump(manifest), self._clock()),
            )
            (text,) = db.execute("SELECT manifest FROM run WHERE id = ?", (run_id,)).fetchone()
        found: dict[str, JSON] = json.loads(text)
        return found

    def runs(self) -> dict[str, dict[str, JSON]]:
        """Return the manifests of all runs, oldest first."""
        rows = self._rows("SELECT id, manifest FROM run ORDER BY created, id")
        try:
            found = {str(run_id): json.loads(str(manifest)) for run_id, manifest in rows}
        except (ValueError, RecursionError):
            found = {"": None}
        if not all(isinstance(manifest, dict) for manifest in found.values()):
            raise DiffoptError("the store holds a broken manifest", where=self.path, hint="take another store")
        return found

    def add_candidate(
        self,
        run_id: str,
        *,
        trace: str,
        key: str,
        origin: str,
        facts: Mapping[str, float],
        predicted: float | None = None,
    ) -> Candidate:
        """See `TrialStore`."""
        with self._transaction() as db:
            if db.execute("SELECT 1 FROM candidate WHERE run_id = ? AND key = ?", (run_id, key)).fetchone():
                raise ValueError(f"run {run_id} already has a candidate with key {key}")
            (last,) = db.execute("SELECT COALESCE(MAX(id), 0) FROM candidate WHERE run_id = ?", (run_id,)).fetchone()
            candidate = Candidate(last + 1, trace, key, origin, dict(facts), predicted)
            db.execute(
                "INSERT INTO candidate (run_id, id, trace, key, origin, facts, predicted, created)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (run_id, candidate.id, trace, key, origin, _dump(facts), predicted, self._clock()),
            )
        return candidate

    def tell(self, run_id: str, candidate_id: int, outcome: Outcome) -> None:
        """See `TrialStore`."""
        from diffopt.bench.outcome import Measured

        text = _dump(outcome.to_json())
        with self._transaction() as db:
            asked = "SELECT 1 FROM candidate WHERE run_id = ? AND id = ?"
            if db.execute(asked, (run_id, candidate_id)).fetchone() is None:
                raise ValueError(f"run {run_id} has no candidate {candidate_id}")
            for table in ("outcome", "failure"):
                told = f"SELECT 1 FROM {table} WHERE run_id = ? AND candidate_id = ?"
                if db.execute(told, (run_id, candidate_id)).fetchone():
                    raise ValueError(f"candidate {candidate_id} of run {run_id} was told before")
            # One order of telling over both tables.
            (last,) = db.execute(
                "SELECT MAX(s) FROM (SELECT COALESCE(MAX(sequence), 0) AS s FROM outcome"
                " UNION ALL SELECT COALESCE(MAX(sequence), 0) FROM failure)"
            ).fetchone()
            table, column, value = (
                ("outcome", "status", "measured")
                if isinstance(outcome, Measured)
                else ("failure", "kind", outcome.kind)
            )
            db.execute(
                f"INSERT INTO {table} (sequence, run_id, candidate_id, {column}, json, created) VALUES (?, ?, ?, ?, ?, ?)",
                (last + 1, run_id, candidate_id, value, text, self._clock()),
            )

    def candidates(self, run_id: str) -> tuple[Candidate, ...]:
        """See `TrialStore`."""
        rows = self._rows(f"SELECT {_COLUMNS} FROM candidate c WHERE run_id = ? ORDER BY id", run_id)
        with self._reading():
            return tuple(map(_candidate, rows))

    def pending(self, run_id: str) -> tuple[Candidate, ...]:
        """See `TrialStore`."""
        query = (
            f"SELECT {_COLUMNS} FROM candidate c LEFT JOIN ({_TOLD}) o ON o.run_id = c.run_id AND o.candidate_id = c.id"
            " WHERE c.run_id = ? AND o.candidate_id IS NULL ORDER BY c.id"
        )
        rows = self._rows(query, run_id)
        with self._reading():
            return tuple(map(_candidate, rows))

    def trials(self, run_id: str) -> tuple[Trial, ...]:
        """See `TrialStore`."""
        from diffopt.bench.outcome import outcome_from_json

        query = (
            f"SELECT {_COLUMNS}, o.json FROM ({_TOLD}) o JOIN candidate c ON o.run_id = c.run_id AND o.candidate_id = c.id"
            " WHERE o.run_id = ? ORDER BY o.sequence"
        )
        rows = self._rows(query, run_id)
        with self._reading():
            return tuple(Trial(_candidate(row[:-1]), outcome_from_json(json.loads(str(row[-1])))) for row in rows)

    def add_proposals(self, run_id: str, proposals: Sequence[Proposal], refused: Sequence[Attempt]) -> None:
        """See `TrialStore`."""
        with self._transaction() as db:
            db.execute("UPDATE run SET consulted = ? WHERE id = ?", (self._clock(), run_id))
            db.executemany(
                "INSERT INTO proposal (run_id, trace, key, origin, facts) VALUES (?, ?, ?, ?, ?)",
                [(run_id, p.trace, p.key, p.origin, _dump(p.facts)) for p in proposals],
            )
            self._insert_attempts(db, run_id, refused)

    def proposals(self, run_id: str) -> tuple[Proposal, ...] | None:
        """See `TrialStore`."""
        consulted = self._rows("SELECT consulted FROM run WHERE id = ?", run_id)
        if not consulted or consulted[0][0] is None:
            return None
        rows = self._rows("SELECT trace, key, origin, facts FROM proposal WHERE run_id = ? ORDER BY sequence", run_id)
        with self._reading():
            return tuple(Proposal(str(t), str(k), str(o), _facts(f)) for t, k, o, f in rows)

    def add_attempt(self, run_id: str, attempt: Attempt) -> None:
        """See `TrialStore`."""
        with self._transaction() as db:
            self._insert_attempts(db, run_id, [attempt])

    def attempts(self, run_id: str) -> tuple[Attempt, ...]:
        """See `TrialStore`."""
        query = "SELECT trace, origin, reason, place, rule FROM attempt WHERE run_id = ? ORDER BY sequence"
        return tuple(Attempt(*(str(value) for value in row)) for row in self._rows(query, run_id))

    def _insert_attempts(self, db: sqlite3.Connection, run_id: str, attempts: Sequence[Attempt]) -> None:
        db.executemany(
            "INSERT INTO attempt (run_id, trace, origin, reason, place, rule, created) VALUES (?, ?, ?, ?, ?, ?, ?)",
            [(run_id, a.trace, a.origin, a.reason, a.where, a.rule, self._clock()) for a in attempts],
        )

    def _open(self) -> None:
        if self.path != MEMORY:
            self._lock = sqlite3.connect(f"{self.path}-writer", isolation_level=None, timeout=0)
            self._lock.execute("BEGIN EXCLUSIVE")
        self._connection = sqlite3.connect(self.path, isolation_level=None, timeout=5)
        self._connection.execute("PRAGMA foreign_keys = ON")
        migrate(self._connection, MIGRATIONS, APPLICATION_ID, self.path)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = FULL")

    def _rows(self, query: str, *values: object) -> list[tuple[object, ...]]:
        with self._explained(), closing(self._db.execute(query, values)) as cursor:
            return cursor.fetchall()

    @property
    def _db(self) -> sqlite3.Connection:
        if self._connection is None:
            raise ValueError(f"the store {self.path} is closed")
        return self._connection

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        db = self._db
        with self._explained():
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Say in one line that a row is not what this version writes; a store may have come from elsewhere."""
        try:
            yield
        except ValueError as error:
            raise DiffoptError(f"the store holds {error}", where=self.path, hint="upgrade diffopt") from error
        except (LookupError, TypeError, AttributeError, RecursionError) as error:
            what = f"the store holds a broken row ({type(error).__name__}: {error})"
            raise DiffoptError(what, where=self.path, hint="take another store") from error

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise store_error(error, self.path) from error


def in_use(path: Path) -> bool:
    """Say whether a process writes to a store now."""
    lock = Path(f"{path}-writer")
    if not lock.exists():
        return False
    try:
        with closing(sqlite3.connect(lock, isolation_level=None, timeout=0)) as held:
            held.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError:
        return True
    except sqlite3.DatabaseError:
        return False
    return False


_TOLD = (
    "SELECT sequence, run_id, candidate_id, json FROM outcome"
    " UNION ALL SELECT sequence, run_id, candidate_id, json FROM failure"
)
_COLUMNS = "c.id, c.trace, c.key, c.origin, c.facts, c.predicted"


def _candidate(row: Sequence[object]) -> Candidate:
    number, trace, key, origin, facts, predicted = row
    expected = None if predicted is None else float(str(predicted))
    return Candidate(int(str(number)), str(trace), str(key), str(origin), _facts(facts), expected)


def _dump(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def _facts(text: object) -> dict[str, float]:
    return {str(name): float(value) for name, value in json.loads(str(text)).items()}
