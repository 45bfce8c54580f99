"""The tables of a store, how an older file becomes a newer one, and what SQLite's errors mean to a user."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from diffopt.ir.errors import DiffoptError

APPLICATION_ID = 0x64666F70
"""Marks an SQLite file as ours: "dfop"."""

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE run (
        id TEXT PRIMARY KEY,
        manifest TEXT NOT NULL,
        consulted REAL,
        created REAL NOT NULL
    );
    CREATE TABLE candidate (
        run_id TEXT NOT NULL REFERENCES run (id),
        id INTEGER NOT NULL,
        trace TEXT NOT NULL,
        key TEXT NOT NULL,
        origin TEXT NOT NULL,
        facts TEXT NOT NULL,
        predicted REAL,
        created REAL NOT NULL,
        PRIMARY KEY (run_id, id),
        UNIQUE (run_id, key)
    );
    CREATE TABLE outcome (
        sequence INTEGER PRIMARY KEY,
        run_id TEXT NOT NULL,
        candidate_id INTEGER NOT NULL,
        status TEXT NOT NULL CHECK (status IN ('measured', 'failed')),
        json TEXT NOT NULL,
        samples TEXT GENERATED ALWAYS AS (json_extract(json, '$.latency.candidate_s')) VIRTUAL,
        baseline_samples TEXT GENERATED ALWAYS AS (json_extract(json, '$.latency.baseline_s')) VIRTUAL,
        created REAL NOT NULL,
        UNIQUE (run_id, candidate_id),
        FOREIGN KEY (run_id, candidate_id) REFERENCES candidate (run_id, id)
    );
    CREATE TABLE proposal (
        sequence INTEGER PRIMARY KEY,
        run_id TEXT NOT NULL REFERENCES run (id),
        trace TEXT NOT NULL,
        key TEXT NOT NULL,
        origin TEXT NOT NULL,
        facts TEXT NOT NULL
    );
    CREATE TABLE attempt (
        sequence INTEGER PRIMARY KEY,
        run_id TEXT NOT NULL REFERENCES run (id),
        trace TEXT NOT NULL,
        origin TEXT NOT NULL,
        reason TEXT NOT NULL,
        place TEXT NOT NULL,
        rule TEXT NOT NULL,
        created REAL NOT NULL
    )
    """,
    """
    CREATE TABLE failure (
        sequence INTEGER PRIMARY KEY,
        run_id TEXT NOT NULL,
        candidate_id INTEGER NOT NULL,
        kind TEXT NOT NULL,
        json TEXT NOT NULL,
        created REAL NOT NULL,
        UNIQUE (run_id, candidate_id),
        FOREIGN KEY (run_id, candidate_id) REFERENCES candidate (run_id, id)
    );
    INSERT INTO failure (sequence, run_id, candidate_id, kind, json, created)
        SELECT sequence, run_id, candidate_id, json_extract(json, '$.kind'), json, created
        FROM outcome WHERE status = 'failed';
    DELETE FROM outcome WHERE status = 'failed'
    """,
)
"""Step *n* takes a file from version *n* to *n + 1*; append, never edit. Statements are separated by semicolons."""

_EXPLANATIONS = (
    ("SQLITE_NOTADB", "is not a diffopt store", "give another path, or remove the file"),
    ("SQLITE_CORRUPT", "is damaged", "restore a copy, or remove the file"),
    ("SQLITE_CANTOPEN", "cannot be opened as a store", "check that the folder exists and that you may write there"),
    ("SQLITE_READONLY", "is read-only", "check that you may write to the file and its folder"),
    ("SQLITE_PERM", "may not be opened", "check that you may write to the file and its folder"),
    ("SQLITE_BUSY", "is in use by another diffopt process", "wait for it, or give another path"),
    ("SQLITE_LOCKED", "is in use by another diffopt process", "wait for it, or give another path"),
    ("SQLITE_FULL", "cannot grow: the disk is full", "free some space and resume; nothing measured is lost"),
    ("SQLITE_IOERR", "cannot be read or written: the disk reports an error", "check the disk and its free space"),
)


def check_store(path: Path) -> None:
    """Check that a file is a store before anything is opened or written beside it.

    Raises:
        DiffoptError: it is not there, no plain file, or no store of ours.
    """
    if not path.is_file():
        raise DiffoptError("no such store", where=str(path), hint="a run keeps its store at OUT.run/store.sqlite")
    with path.open("rb") as file:
        head = file.read(72)
    if not head.startswith(b"SQLite format 3\0") or int.from_bytes(head[68:72]) != APPLICATION_ID:
        raise DiffoptError("not a diffopt store", where=str(path), hint="a run keeps its store at OUT.run/store.sqlite")


def store_error(error: sqlite3.Error, path: str) -> DiffoptError:
    """Say in one line what an SQLite error means for the store at `path`."""
    name = getattr(error, "sqlite_errorname", None) or ""
    for prefix, message, hint in _EXPLANATIONS:
        if name.startswith(prefix):
            return DiffoptError(f"the store {message}", where=path, hint=hint)
    return DiffoptError(f"the store cannot be used ({error})", where=path)


def migrate(db: sqlite3.Connection, steps: Sequence[str], application_id: int, path: str) -> None:
    """Bring a file to version ``len(steps)``, one transaction a step; an interrupted step leaves the version before it.

    Raises:
        DiffoptError: the file belongs to another program or to a newer diffopt.
    """
    (found_id,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (tables,) = db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
    if found_id != application_id and (found_id or version or tables):
        raise DiffoptError("the file belongs to another program", where=path, hint="give another path for the store")
    if version > len(steps):
        raise DiffoptError(
            f"the store has version {version}, this diffopt knows versions up to {len(steps)}",
            where=path,
            hint="upgrade diffopt, or give another path",
        )
    for number in range(version, len(steps)):
        db.execute("BEGIN IMMEDIATE")
        try:
            for statement in filter(str.strip, steps[number].split(";")):
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {application_id}")
            db.execute(f"PRAGMA user_version = {number + 1}")
            db.execute("COMMIT")
        except BaseException:
            db.execute("ROLLBACK")
            raise
