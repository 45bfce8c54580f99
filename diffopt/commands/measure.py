"""`diffopt measure`: an honest A/B of any two pipelines."""

from __future__ import annotations

import argparse

from diffopt.commands import BUILTIN_NAMES, add_json, add_set, print_json, settings_of, size_of
from diffopt.ir.errors import DiffoptError
from diffopt.sources import check_exists

TEXT = "race two pipelines against each other: interleaved pairs, fresh seeds, images compared"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    side = f"a script, model directory, artifact, a .py file that defines load(), {BUILTIN_NAMES}"
    parser.add_argument("a", metavar="A", help=side)
    parser.add_argument("b", metavar="B", help="likewise; the ratio is A's time divided by B's")
    parser.add_argument("--prompts", metavar="FILE", help="one prompt a line")
    parser.add_argument("--pairs", type=int, default=30, help="the most timed pairs (default: %(default)s)")
    parser.add_argument("--size", metavar="HxW", help="of the images, where neither A nor B tells")
    parser.add_argument("--batch", type=int, default=1, help="prompts a call, for throughput (default: %(default)s)")
    parser.add_argument("--target", default="cpu", help="cpu or cuda[:N] (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the order of pairs")
    add_set(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command; 1 where B does not run."""
    for source in (options.a, options.b):
        check_exists(source, settings_of(options))
    from diffopt.bench.device import check_target
    from diffopt.comparison import compare_sources, comparison_lines
    from diffopt.display import Display, print_lines

    check_target(options.target)
    for name in ("pairs", "batch"):
        if getattr(options, name) < 1:
            raise DiffoptError("must be at least 1", where=f"--{name}")
    if options.seed < 0:
        raise DiffoptError("must not be negative", where="--seed")
    with Display(quiet=options.json) as display:
        found = compare_sources(
            options.a,
            options.b,
            prompts=options.prompts,
            pairs=options.pairs,
            target=options.target,
            size=size_of(options.size),
            batch=options.batch,
            settings=settings_of(options),
            seed=options.seed,
            listen=display,
        )
    report = found.to_json()
    if options.json:
        print_json(report)
    else:
        print_lines(comparison_lines(found))
    return 0 if report["ok"] else 1
