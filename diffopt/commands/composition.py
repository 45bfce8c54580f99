"""`diffopt composition`: what passes and pairs of them did, from the stores of earlier runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from diffopt.commands import add_json, print_json

TEXT = "show what passes and pairs of passes did where they were measured, from the stores of earlier runs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("stores", metavar="STORE", nargs="+", help="OUT.run/store.sqlite, or OUT.run")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    from diffopt.composition import composition_lines, composition_maps
    from diffopt.display import print_lines

    maps = composition_maps([store_of(text) for text in options.stores])
    if options.json:
        print_json({"ok": True, "maps": [found.to_json() for found in maps]})
    else:
        print_lines([line for found in maps for line in (*composition_lines(found), "")][:-1])
    return 0


def store_of(text: str) -> Path:
    """Return the store that a path names: the file, or the folder of a run."""
    from diffopt.session import STORE

    path = Path(text)
    return path / STORE if path.is_dir() else path
