"""`diffopt bench search`: set targets by a search, let arms search at equal budgets, judge what answers the tasks."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffopt.ir.errors import DiffoptError
from diffopt.llm_options import add_llm, llm_settings

if TYPE_CHECKING:
    from diffopt.bench.suite.measuring import Protocol
    from diffopt.bench.suite.searches import Searches
    from diffopt.diffbench.problem import BaselineProblem
    from diffopt.llm.planner import Planner

ARMS_HELP = (
    "who searches, of ours,rules,random,tpe,nsga2,diffagent,best-of-n,sequential,ours-whole (default: all); diffagent, best-of-n"
    " and sequential plan with the language model that is given here, and with random changes where none is"
)

PROMPTS, PAIRS = 8, (4, 4)
"""Of the search: what a candidate is measured with."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the search itself."""
    parser.add_argument("--baselines", type=int, metavar="N", help="the first N, of each family in turn (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of the tasks: 0 is public, others are held out")
    parser.add_argument("--arms", default="", help=ARMS_HELP)
    parser.add_argument("--budgets", default="1,28,60", help="of measured candidates (default: %(default)s)")
    parser.add_argument("--minutes", type=float, help="start no measurement after these; a later run goes on")
    parser.add_argument("--store", metavar="FILE", help="of what was measured (default: beside the output)")
    parser.add_argument("--work", metavar="DIR", help="engines and reference images (default: beside the store)")
    parser.add_argument("-o", "--output", default="out/diffbench-searches.json.gz", help="(default: %(default)s)")
    add_llm(parser, passes=argparse.SUPPRESS)


def searched(options: argparse.Namespace, judging: Protocol, listen: Callable[[str], None]) -> Searches:
    """Search as the options say, and write what is known.

    Raises:
        DiffoptError: an option is wrong, a baseline does not run, or the disk is full.
    """
    from diffopt.bench.suite.measuring import Protocol
    from diffopt.bench.suite.searches import write_searches
    from diffopt.bench.suite.store import MeasurementStore
    from diffopt.diffbench.running import Terms, baselines_of, run_searches

    output = Path(options.output)
    store = Path(options.store) if options.store else output.with_name(f"{output.name}.store")
    work = Path(options.work) if options.work else store.with_name(f"{store.name}.work")
    arms = _arms(options.arms)
    if options.minutes is not None and options.minutes < 0:
        raise DiffoptError("must not be negative", where="--minutes")
    if options.baselines is not None and options.baselines < 1:
        raise DiffoptError("must be at least 1", where="--baselines")
    searching = Protocol(
        PROMPTS, aimed_pairs=PAIRS, seed=judging.seed, target=judging.target, threads=judging.threads, split="search"
    )
    terms = Terms(judging, searching, arms, _budgets(options.budgets), options.seed, **_planner(options, work))
    found = run_searches(
        baselines_of(options.seed, options.baselines), MeasurementStore(store), terms, work=work,
        seconds=None if options.minutes is None else 60 * options.minutes, listen=listen,
    )  # fmt: skip
    write_searches(output, found)
    return found


def _arms(text: str) -> tuple[str, ...]:
    from diffopt.diffbench.arms import ARMS

    names = tuple(name for name in text.split(",") if name) or tuple(ARMS)
    unknown = [name for name in names if name not in ARMS]
    if unknown:
        raise DiffoptError(f"no arm {unknown[0]!r}", where="--arms", hint=f"there is {', '.join(ARMS)}")
    return names


def _budgets(text: str) -> tuple[int, ...]:
    try:
        found = sorted({int(part) for part in text.split(",") if part})
    except ValueError:
        found = []
    if not found or not 1 <= found[0] <= found[-1] <= 1000:
        raise DiffoptError(f"{text!r} are no numbers of candidates", where="--budgets", hint="such as 1,28,60")
    return tuple(found)


def _planner(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Return who plans, where an endpoint or a transcript is given."""
    if not (options.llm_base_url or options.llm_model or options.llm_replay):
        return {}
    from diffopt.agents import client_for, transcript_for
    from diffopt.bench.device import devices
    from diffopt.bench.disk import make_folder
    from diffopt.diffbench.problem import WORDS
    from diffopt.llm.planner import Planner

    settings = llm_settings(options)
    goal = (
        "the least latency at batch 1, with at least 95 % of the baseline's prompt adherence; "
        f"use only these passes: {', '.join(WORDS)}"
    )
    facts = devices(accelerators=False)[0]

    def plan(problem: BaselineProblem, seed: int) -> Planner:
        # A search that is taken up again, or goes on to a larger budget, asks from the beginning and pays for nothing twice.
        file = make_folder(work / "llm") / f"{str(problem.baseline).replace(' ', '-')}.jsonl"
        client = client_for(os.environ, settings)
        return Planner(client, transcript_for(client, settings, file), goal=goal, device=facts)

    return {"planner": f"the language model {options.llm_model or 'of a transcript'}", "plan": plan}
