"""`diffopt lift`: print the IR of a source; nothing of it is run."""

from __future__ import annotations

import argparse
import sys

from diffopt.commands import SOURCE, add_set, settings_of

TEXT = "print the IR of a source; nothing of it is run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("source", metavar="SOURCE", help=SOURCE)
    add_set(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    from diffopt.display import say_assumed
    from diffopt.ir.identity import print_module
    from diffopt.sources import lift_all

    say_assumed(module := lift_all(options.source, settings_of(options)))
    sys.stdout.write(print_module(module))
    return 0
