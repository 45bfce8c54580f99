"""`diffopt emit`: print the code of a source, with passes applied where given."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from diffopt.commands import SOURCE, add_set, settings_of
from diffopt.ir.errors import DiffoptError
from diffopt.llm_options import add_sandbox

TEXT = "print the code of a source, with passes applied where given"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("source", metavar="SOURCE", help=SOURCE)
    parser.add_argument("--passes", default="", metavar="TRACE", help="passes to apply first")
    parser.add_argument("--patch", action="store_true", help="for a script: print the patch of the script instead")
    add_sandbox(parser)
    add_set(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    from diffopt.agents import promoted
    from diffopt.display import say_assumed
    from diffopt.ir.emit_pipeline import emit_pipeline
    from diffopt.llm.library import spelled_out
    from diffopt.llm.rewriter import SandboxedRewriter
    from diffopt.llm.sandbox import Limits
    from diffopt.passes.pipeline import Trace, applied
    from diffopt.sources import lift

    source = lift(options.source, settings_of(options))
    say_assumed(source.module)
    library = promoted(os.environ)
    trace = Trace.parse(spelled_out(options.passes, library))
    if not options.patch:
        rewriter = SandboxedRewriter([library], Limits(level=options.sandbox_level))
        sys.stdout.write(emit_pipeline(applied(trace, source.module), rewriter))
        return 0
    if source.kind != "script":
        raise DiffoptError("only a script can be patched", where=options.source, hint="leave --patch out")
    from diffopt.packing import patch_of_trace

    sys.stdout.write(patch_of_trace(trace, source, settings_of(options), engines=Path("engines")))
    return 0
