"""`diffopt opt`: apply passes to a source and print the IR they lead to."""

from __future__ import annotations

import argparse
import os
import sys

from diffopt.commands import SOURCE, add_set, settings_of

TEXT = "apply passes to a source and print the IR they lead to"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("source", metavar="SOURCE", help=SOURCE)
    parser.add_argument("--passes", required=True, metavar="TRACE", help='such as "reduce-steps{steps=12},export"')
    add_set(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    from diffopt.agents import promoted
    from diffopt.display import say_assumed
    from diffopt.ir.identity import print_module
    from diffopt.llm.library import spelled_out
    from diffopt.passes.pipeline import Trace, applied
    from diffopt.sources import lift

    say_assumed(module := lift(options.source, settings_of(options)).module)
    sys.stdout.write(print_module(applied(Trace.parse(spelled_out(options.passes, promoted(os.environ))), module)))
    return 0
