"""`diffopt explain`: say what each pass of an artifact does and bought, and where the time of a call goes here."""

from __future__ import annotations

import argparse

from diffopt.commands import ARTIFACT, add_json, print_json, quiet_libraries

TEXT = "say what each pass of an artifact does and bought, and where the time of a call goes here"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("artifact", metavar="ARTIFACT", help=ARTIFACT)
    parser.add_argument("--model", metavar="PATH", help="where the model directory stands, if it has moved")
    parser.add_argument("--effects", action="store_true", help="measure what each pass bought, which takes minutes")
    parser.add_argument("--prompts", type=int, default=6, metavar="N", help="of --effects (default: %(default)s)")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    from diffopt.artifact import Artifact

    Artifact.open(options.artifact)  # before the libraries are imported, which takes seconds
    from diffopt.display import Display, print_lines
    from diffopt.effects import Effects, effects_lines, effects_of_artifact
    from diffopt.explain import explain, explanation_lines

    with quiet_libraries():
        found = explain(options.artifact, model=options.model)
    effects: Effects | str | None = None
    if options.effects:
        with Display(quiet=options.json) as display:
            effects = effects_of_artifact(
                options.artifact, model=options.model, prompts=options.prompts, listen=display
            )
    if options.json:
        measured = effects.to_json() if isinstance(effects, Effects) else effects
        print_json(found.to_json() | ({"effects": measured} if options.effects else {}))
        return 0
    lines = explanation_lines(found)
    if effects is not None:
        lines += effects_lines(effects) if isinstance(effects, Effects) else [effects]
    print_lines(lines)
    return 0
