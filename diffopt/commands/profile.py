"""`diffopt profile`: where the time goes, mapped to the script's lines."""

from __future__ import annotations

import argparse

from diffopt.commands import SOURCE, add_json, add_set, print_json, quiet_libraries, settings_of
from diffopt.sources import check_exists

TEXT = "say where the time of a pipeline goes here, by stage and step, and from which line of the script it comes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("source", metavar="SOURCE", help=SOURCE)
    parser.add_argument("--passes", default="", metavar="TRACE", help="passes to apply first")
    parser.add_argument("--runs", type=int, default=5, help="calls whose median counts (default: %(default)s)")
    parser.add_argument("--prompt", help="what to draw")
    add_set(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    check_exists(options.source, settings_of(options))
    from diffopt.display import print_lines
    from diffopt.profiling import profile_lines, profile_source

    with quiet_libraries():
        found = profile_source(
            options.source,
            settings=settings_of(options),
            passes=options.passes,
            runs=options.runs,
            prompt=options.prompt,
        )
    if options.json:
        print_json(found.to_json())
    else:
        print_lines(profile_lines(found))
    return 0
