"""`diffopt passes`: show the catalogue, or one pass."""

from __future__ import annotations

import argparse

from diffopt.commands import add_json, print_json

TEXT = "show the catalogue, or one pass"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("name", nargs="?", metavar="NAME")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    from diffopt.catalogue import catalogue_json, catalogue_lines, pass_lines
    from diffopt.display import print_lines

    if options.json:
        print_json(catalogue_json(options.name))
    else:
        print_lines(pass_lines(options.name) if options.name else catalogue_lines())
    return 0
