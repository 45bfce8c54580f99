"""`diffopt store`: list the runs of a store, and carry measurements from one to another."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from diffopt.commands import add_json, print_json

TEXT = "list the runs of a store, and carry measurements from one to another"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "action",
        choices=("list", "export", "import", "merge"),
        help="list the runs; export them to a document; import documents; merge other stores in",
    )
    parser.add_argument("store", metavar="STORE", help="OUT.run, or the file of a store")
    parser.add_argument(
        "files", metavar="FILE", nargs="*", default=[], help="documents to import, or stores to merge in"
    )
    parser.add_argument("--run", dest="only", metavar="NAME", help="of export: this run alone")
    parser.add_argument("-o", "--out", help="of export: the document (default: standard output)")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    from diffopt.ir.errors import DiffoptError
    from diffopt.search.exchange import exported, imported
    from diffopt.search.store import Store
    from diffopt.search.store_schema import check_store

    place = _file(options.store)
    if options.action in ("list", "export") or os.path.lexists(place):
        check_store(place)
    if options.out is not None and os.path.lexists(options.out):
        raise DiffoptError("already exists", where=options.out, hint="give another -o")
    if options.action in ("import", "merge") and not options.files:
        raise DiffoptError(
            f"nothing to {options.action}", where="FILE", hint=f"diffopt store {options.action} STORE FILE"
        )
    for file in options.files if options.action == "merge" else ():
        check_store(_file(file))
    with Store(place) as store:
        if options.action == "list":
            return _list(store, as_json=options.json)
        if options.action == "export":
            text = json.dumps(exported(store, run=options.only), ensure_ascii=False) + "\n"
            if options.out is None:
                sys.stdout.write(text)
            else:
                Path(options.out).write_text(text, encoding="utf-8")
            return 0
        added = []
        for file in options.files:
            if options.action == "merge":
                with Store(_file(file)) as other:
                    data = exported(other)
            else:
                data = _document(Path(file))
            found = imported(store, data, where=file)
            added.append({"file": file, "runs": found.runs, "trials": found.trials, "known": found.known})
    if options.json:
        print_json({"ok": True, "added": added})
    else:
        for row in added:
            sys.stdout.write(
                f"{row['file']}: {row['runs']} runs and {row['trials']} trials added, {row['known']} known already\n"
            )
    return 0


def _file(given: str) -> Path:
    """Return a store's file; the folder of a run stands for the store in it."""
    from diffopt.session import STORE

    place = Path(given)
    return place / STORE if (place / STORE).is_file() else place


def _list(store: object, *, as_json: bool) -> int:
    from diffopt.bench.outcome import Measured
    from diffopt.search.exchange import made_with
    from diffopt.search.store import Store

    assert isinstance(store, Store)
    rows = []
    for name, manifest in store.runs().items():
        trials = store.trials(name)
        done = sum(isinstance(trial.outcome, Measured) for trial in trials)
        model = manifest.get("model")
        rows.append(
            {
                "run": name,
                "made_with": made_with(manifest),
                "model": model.get("path", "") if isinstance(model, dict) else "",
                "target": manifest.get("target", ""),
                "measured": done,
                "failed": len(trials) - done,
                "pending": len(store.pending(name)),
                "refused": len(store.attempts(name)),
            }
        )
    if as_json:
        print_json({"store": store.path, "runs": rows})
        return 0
    for row in rows:
        line = (
            f"{row['run']:24} {row['made_with']}  {row['measured']:4} measured {row['failed']:3} failed"
            f" {row['pending']:3} pending {row['refused']:3} refused  {row['target']}  {row['model']}"
        )
        # Manifests come from elsewhere too: no control character of theirs reaches the terminal.
        sys.stdout.write("".join(char if char.isprintable() else "?" for char in line) + "\n")
    return 0


def _document(path: Path) -> dict[str, object]:
    from diffopt.ir.errors import DiffoptError

    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DiffoptError(
            "cannot be read as JSON", where=str(path), hint="make it with: diffopt store export"
        ) from error
    if not isinstance(data, dict):
        raise DiffoptError("not a document of runs", where=str(path), hint="make it with: diffopt store export")
    return data
