"""`diffopt backends`: what can build engines here, and environments for what cannot stand beside our packages."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from diffopt.commands import add_json, print_json
from diffopt.ir.errors import DiffoptError

TEXT = "show what can build engines here; `add NAME` makes an environment of its own for one"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("action", nargs="?", choices=("list", "add"), default="list")
    parser.add_argument("name", nargs="?", metavar="NAME", help="of the environment to add")
    parser.add_argument(
        "--home", type=Path, default=Path.home() / ".cache" / "diffopt" / "backends", help="default: %(default)s"
    )
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    from diffopt.backends.base import BackendError
    from diffopt.backends.isolated import add_environment

    if options.action == "list":
        return _list(options)
    if options.name is None:
        raise DiffoptError("no environment is named", where="add", hint="`diffopt backends` lists them")
    sys.stderr.write(f"installing {options.name} ...\n")
    try:
        python = add_environment(options.name, options.home)
    except BackendError as error:
        raise DiffoptError(error.message, where=options.name, hint=error.hint) from error
    if options.json:
        print_json({"ok": True, "python": str(python)})
    else:
        print(python)
    return 0


def _list(options: argparse.Namespace) -> int:
    import importlib

    from diffopt.backends.base import BUILDERS
    from diffopt.backends.isolated import ENVIRONMENTS

    rows: list[dict[str, Any]] = []
    for name, (module, attribute) in BUILDERS.items():
        made = getattr(importlib.import_module(module), attribute)()
        can = made.capabilities
        rows.append({"name": name, "missing": made.available(), "precisions": can.precisions, "devices": can.devices})
    environments = [
        {"name": name, "about": found.about, "added": (options.home / name / "done").exists()}
        for name, found in ENVIRONMENTS.items()
    ]
    if options.json:
        print_json({"builders": rows, "environments": environments})
        return 0
    for row in rows:
        state = row["missing"] or f"{', '.join(row['precisions'])} on {', '.join(row['devices'])}"
        print(f"{row['name']:22} {state}")
    print("environments of their own")
    for found in environments:
        print(f"{found['name']:22} {'added' if found['added'] else 'not added':10} {found['about']}")
    return 0
