"""`diffopt explain`: say what each pass of an artifact does, and where the time of a call goes here."""

from __future__ import annotations

import argparse

from diffopt.commands import add_json, print_json, quiet_libraries

TEXT = "say what each pass of an artifact does, and where the time of a call goes here"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("artifact", metavar="ARTIFACT")
    parser.add_argument("--model", metavar="PATH", help="where the model directory stands, if it has moved")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    from diffopt.display import print_lines
    from diffopt.explain import explain, explanation_lines

    with quiet_libraries():
        found = explain(options.artifact, model=options.model)
    if options.json:
        print_json(found.to_json())
    else:
        print_lines(explanation_lines(found))
    return 0
