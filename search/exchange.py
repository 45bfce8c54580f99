"""Runs as one JSON document, to carry measurements from one store, or machine, to another."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffopt.bench.outcome import Measured, Outcome, outcome_from_json
from diffopt.ir.errors import DiffoptError
from diffopt.search.store import Store

FORMAT, VERSION = "diffopt-runs", 1

MADE_WITH = ("module", "model", "target", "libraries", "thresholds", "workload", "evaluator")
"""What decides a measurement; trials of runs that agree in all of it may stand in one run."""


@dataclass(frozen=True)
class Added:
    """What an import brought: runs that were not there, and trials; trials that were there already."""

    runs: int
    trials: int
    known: int


def exported(store: Store, *, run: str | None = None) -> dict[str, Any]:
    """Return runs with their trials; pending candidates stay behind.

    Raises:
        DiffoptError: there is no such run.
    """
    runs = store.runs()
    if run is not None and run not in runs:
        raise DiffoptError(f"no run {run!r}", where=store.path, hint=f"there is {', '.join(runs) or 'none'}")
    return {
        "format": FORMAT,
        "version": VERSION,
        "runs": [
            {
                "id": name,
                "manifest": manifest,
                "trials": [
                    {
                        "trace": trial.candidate.trace,
                        "key": trial.candidate.key,
                        "origin": trial.candidate.origin,
                        "facts": dict(trial.candidate.facts),
                        "predicted": trial.candidate.predicted,
                        "outcome": trial.outcome.to_json(),
                    }
                    for trial in store.trials(name)
                ],
            }
            for name, manifest in runs.items()
            if run in (None, name)
        ],
    }


def imported(store: Store, data: Mapping[str, Any], *, where: str = "") -> Added:
    """Add runs to a store; importing again adds nothing.

    A run keeps its name with a hash of what it was made with behind it: trials of the same making are united, others
    are kept apart.

    Raises:
        DiffoptError: the document is of another format or version, or broken.
    """
    if data.get("format") != FORMAT or data.get("version") != VERSION:
        hint = "make it with: diffopt store export"
        raise DiffoptError(f"not a {FORMAT} document of version {VERSION}", where=where, hint=hint)
    try:
        # All of it is read before any of it is written: a broken document adds nothing.
        read = [
            (f"{_text(run['id']).partition('@')[0]}@{made_with(run['manifest'])}", run["manifest"],
             [_trial(row) for row in run["trials"]])
            for run in data["runs"]
        ]  # fmt: skip
        json.dumps(data["runs"], ensure_ascii=False).encode()
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise DiffoptError(f"a broken document ({type(error).__name__}: {error})", where=where) from error
    runs = trials = known = 0
    for name, manifest, rows in read:
        runs += name not in store.runs()
        store.open_run(name, manifest)
        there = {candidate.key for candidate in store.candidates(name)}
        for fields, outcome in rows:
            if fields["key"] in there:
                known += 1
                continue
            there.add(fields["key"])
            store.tell(name, store.add_candidate(name, **fields).id, outcome)
            trials += 1
    return Added(runs, trials, known)


def _trial(row: Mapping[str, Any]) -> tuple[dict[str, Any], Outcome]:
    """Return what a store keeps of a candidate, and its outcome. Raises one of several errors where a value cannot be."""
    predicted, facts = row["predicted"], row["facts"]
    fields = {name: _text(row[name]) for name in ("trace", "key", "origin")} | {
        "facts": {name: float(value) for name, value in facts.items()},
        "predicted": None if predicted is None else float(predicted),
    }
    outcome = outcome_from_json(row["outcome"])
    if isinstance(outcome, Measured):
        _text(outcome.tier)
    return fields, outcome


def _text(value: object) -> str:
    """Return a text that can be kept and printed."""
    if not isinstance(value, str) or any(unicodedata.category(char) in ("Cc", "Cs") for char in value):
        raise ValueError(f"{value!r} is no plain text")
    return value


def made_with(manifest: Mapping[str, Any]) -> str:
    """Return 8 hexadecimal digits of what decides a run's measurements."""
    text = json.dumps({name: manifest.get(name) for name in MADE_WITH}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
