"""`diffopt bisect`: find the pass, the step and the layer at fault."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from diffopt.commands import ARTIFACT, add_json, print_json

TEXT = "find the pass of an artifact that is at fault for bad images, slowness or a crash, and write a reproducer"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("artifact", metavar="ARTIFACT", help=ARTIFACT)
    parser.add_argument("--what", choices=("images", "speed", "crash"), default="images", help="default: %(default)s")
    parser.add_argument(
        "--floor", type=float, metavar="DB", help="images below this median PSNR are bad (default: near's)"
    )
    parser.add_argument("--least-speedup", type=float, default=1.0, metavar="X", help="of --what speed (default: 1)")
    parser.add_argument("--passes", metavar="TRACE", help="look among these instead of the artifact's own")
    parser.add_argument("--prompts", type=int, default=8, metavar="N", help="of the search's prompts (default: 8)")
    parser.add_argument("--model", metavar="PATH", help="where the model directory stands, if it has moved")
    parser.add_argument("-o", "--out", metavar="FOLDER", help="of the reproducer (default: ARTIFACT.bisect)")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command; 1 where nothing is at fault."""
    from diffopt.artifact import Artifact
    from diffopt.ir.errors import DiffoptError

    for name, value in (("--floor", options.floor), ("--least-speedup", options.least_speedup)):
        if value is not None and not math.isfinite(value):
            raise DiffoptError(f"{value} is no finite number", where=name)
    Artifact.open(options.artifact)  # before the libraries are imported, which takes seconds
    from diffopt.bisection import fault_lines, find_fault, write_reproducer
    from diffopt.display import Display, print_lines
    from diffopt.passes.pipeline import Trace
    from diffopt.remeasure import bench_of

    out = Path(options.out or f"{options.artifact.rstrip('/')}.bisect")
    if out.exists():
        raise DiffoptError("already exists", where=str(out), hint="give another -o")
    with (
        Display(quiet=options.json) as display,
        bench_of(options.artifact, model=options.model, prompts=options.prompts, build=True, listen=display) as bench,
    ):
        fault = find_fault(
            bench.evaluator,
            bench.module,
            Trace.parse(options.passes) if options.passes else bench.trace,
            what=options.what,
            floor_db=options.floor,
            least_speedup=options.least_speedup,
            thresholds=bench.evaluator.thresholds,
            listen=display,
        )
        if fault.passes:
            write_reproducer(out, fault, bench.module)
    if options.json:
        print_json(fault.to_json() | {"reproducer": str(out) if fault.passes else None})
    else:
        print_lines(fault_lines(fault) + ([f"reproducer  python {out / 'reproduce.py'}"] if fault.passes else []))
    return 0 if fault.passes else 1
