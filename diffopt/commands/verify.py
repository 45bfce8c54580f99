"""`diffopt verify`: measure an artifact again, here; exit 1 where it misses what it promises."""

from __future__ import annotations

import argparse

from diffopt.commands import ARTIFACT, add_json, print_json, result_json

TEXT = "measure an artifact again, here; exit 1 where it misses what it promises"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("artifact", metavar="ARTIFACT", help=ARTIFACT)
    parser.add_argument("--model", metavar="PATH", help="where the model directory stands, if it has moved")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    from diffopt.artifact import Artifact

    Artifact.open(options.artifact)  # before the libraries are imported, which takes seconds
    from diffopt.api import verify
    from diffopt.display import Display, describe, print_lines

    with Display(quiet=options.json) as display:
        verdict = verify(options.artifact, model=options.model, listen=display)
    if options.json:
        result = result_json(
            verdict.ok, verdict.artifact.path, verdict.outcome.to_json(), verdict.artifact.manifest["trace"]
        )
        print_json(result | {"reason": verdict.reason, "recorded": verdict.recorded.to_json()})
    else:
        print_lines([f"recorded {describe(verdict.recorded)}", f"here     {describe(verdict.outcome)}"])
        print_lines(
            ["kept: the tier, and the speed-up to within a quarter" if verdict.ok else f"missed: {verdict.reason}"]
        )
    return 0 if verdict.ok else 1
