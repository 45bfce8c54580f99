"""`diffopt compile`: search for the fastest pipeline that meets the goal, and prove it."""

from __future__ import annotations

import argparse
import os
import re
import sys
from typing import TYPE_CHECKING

from diffopt.agents import PLANNERS
from diffopt.commands import SOURCE, add_json, add_set, print_json, result_json, settings_of
from diffopt.ir.errors import DiffoptError
from diffopt.llm_options import add_llm, llm_settings
from diffopt.sources import check_exists

if TYPE_CHECKING:
    from diffopt.cluster import Cluster

TEXT = "search for the fastest pipeline that meets the goal, and prove it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("source", metavar="SOURCE", help=SOURCE)
    parser.add_argument("-o", "--out", default="diffopt-out", help="folder of the artifact (default: %(default)s)")
    parser.add_argument("--target", default="cpu", help="cpu or cuda[:N] (default: %(default)s)")
    parser.add_argument("--tier", choices=("exact", "near", "traded"), default="near", help="default: %(default)s")
    parser.add_argument("--min-fidelity", type=float, metavar="DB", help="least median paired PSNR")
    parser.add_argument("--max-latency", type=float, metavar="MS", help="most milliseconds a call")
    parser.add_argument("--max-memory", type=float, metavar="GB", help="most peak memory")
    parser.add_argument(
        "--minimize",
        choices=("latency", "memory"),
        default="latency",
        help="what decides between programs that keep all this (default: %(default)s)",
    )
    parser.add_argument("--keep-steps", action="store_true", help="leave the number of steps alone")
    parser.add_argument(
        "--budget", default="10m", help="of the search: a time (90s, 10m) or a number of candidates (40)"
    )
    parser.add_argument(
        "--no-early-stop", action="store_true", help="spend the whole budget, also where gains are under the noise"
    )
    parser.add_argument(
        "--executor",
        choices=("local", "ray"),
        default="local",
        help="where candidates are measured (default: %(default)s)",
    )
    parser.add_argument(
        "--ray-address",
        metavar="HOST:PORT",
        help="of an existing Ray cluster, or auto; without it, one is started here",
    )
    parser.add_argument("--workers", type=int, default=1, help="supervisors on the Ray cluster (default: %(default)s)")
    parser.add_argument(
        "--sizes", metavar="WxH,WxH", help="sizes that engines are built for and the goal must hold at, beside the own"
    )
    parser.add_argument(
        "--batches",
        metavar="N,N",
        help="prompts of a call that the goal must hold at, beside one; bounds are of a call",
    )
    parser.add_argument("--prompts", metavar="FILE", help="one prompt a line; half of them are held out")
    parser.add_argument("--passes", metavar="TRACE", help="measure this one trace instead of searching")
    parser.add_argument("--planner", choices=PLANNERS, default="rules", help="who proposes, or searches by itself")
    add_llm(parser)
    parser.add_argument(
        "--prior",
        metavar="STORE",
        help="earlier runs, of any pipeline (`diffopt store merge` unites some): their best programs, and what their passes"
        " did, propose candidates too",
    )
    parser.add_argument(
        "--fit-solver",
        metavar="N,N",
        help="fit solvers of so many steps to the model first, which takes a minute or more",
    )
    parser.add_argument(
        "--no-controls", action="store_true", help="leave out the control arms; torch.compile takes long"
    )
    parser.add_argument(
        "--engine-cache-size",
        metavar="SIZE",
        help="most bytes of the run's engines (500M, 5G); the least used go first",
    )
    parser.add_argument("--resume", action="store_true", help="go on with a run that was stopped")
    parser.add_argument("--force", action="store_true", help="replace an artifact, or start a stopped run again")
    parser.add_argument("--seed", type=int, default=0, help="of the search and of the prompts' choice")
    add_set(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    check_exists(options.source, settings_of(options))
    from diffopt.agents import agent_for, promoted
    from diffopt.api import Goal, compile
    from diffopt.display import Display, print_lines
    from diffopt.envelope import Envelope
    from diffopt.fitted import step_counts, with_fitted
    from diffopt.llm.library import spelled_out
    from diffopt.report import summary_lines

    if options.seed < 0:
        raise DiffoptError("must not be negative", where="--seed")
    goal = Goal(
        options.tier,
        options.min_fidelity,
        options.max_latency,
        options.max_memory,
        options.keep_steps,
        options.minimize,
    )
    goal.constraints()
    cluster = _cluster(options)
    settings = llm_settings(options)
    agent = agent_for(options.planner, goal, options.target, os.environ, settings, seed=options.seed)
    if options.prior is not None:
        from diffopt.commands.composition import store_of
        from diffopt.composition import with_prior

        agent = with_prior(agent, store_of(options.prior), options.target)
    if options.fit_solver is not None and options.keep_steps:
        raise DiffoptError("a fitted solver changes the steps, which are to be kept", where="--fit-solver")
    fitted_steps = step_counts(options.fit_solver) if options.fit_solver is not None else ()
    with Display(quiet=options.json) as display:
        if fitted_steps:
            agent = with_fitted(agent, fitted_steps, options.source, options.target, listen=display)
        artifact = compile(
            options.source,
            options.out,
            goal=goal,
            target=options.target,
            budget=options.budget,
            early_stop=not options.no_early_stop,
            prompts=options.prompts,
            passes=options.passes and spelled_out(options.passes, promoted(os.environ, settings.data)),
            agent=agent,
            cluster=cluster,
            envelope=Envelope.parse(options.sizes, options.batches),
            engine_cache=_bytes(options.engine_cache_size),
            resume=options.resume,
            force=options.force,
            seed=options.seed,
            controls=not options.no_controls,
            settings=settings_of(options),
            command=options.command_line,
            listen=display,
        )
    if artifact is None:
        if options.json:
            near = [{"trace": m.trace, "reasons": m.reasons, "outcome": m.outcome.to_json()} for m in display.missed]
            reason = "no candidate met the goal on held-out prompts"
            print_json({"ok": False, "artifact": None, "reason": reason, "closest": near})
        sys.stderr.write(
            "diffopt: no candidate met the goal; ask for less (--tier, --min-fidelity, --max-latency), or search longer"
            f" with --resume (all that was tried is in {options.out}.run/store.sqlite)\n"
        )
        return 1
    if options.json:
        print_json(result_json(True, artifact.path, artifact.manifest["result"], artifact.manifest["trace"]))
    else:
        print_lines(
            [
                *summary_lines(artifact.manifest),
                "",
                f"artifact  {artifact.path}",
                f"report    {artifact.path / 'report.html'}",
            ]
        )
    return 0


def _cluster(options: argparse.Namespace) -> Cluster | None:
    """Return the cluster that is asked for, or None to measure here."""
    if options.executor == "ray":
        from diffopt.cluster import Cluster

        return Cluster(options.ray_address, options.workers)
    if options.ray_address is not None or options.workers != 1:
        option = "--workers" if options.ray_address is None else "--ray-address"
        raise DiffoptError("is of a Ray cluster", where=option, hint="add --executor ray")
    return None


def _bytes(text: str | None) -> int | None:
    """Return the bytes that a size like 500M or 5G stands for."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", text.strip(), re.IGNORECASE)
    if found is None:
        raise DiffoptError(f"{text!r} is no size", where="--engine-cache-size", hint="write it like 500M or 5G")
    return int(float(found.group(1)) * 1000 ** " KMGT".index(found.group(2).upper() or " "))
