"""`diffopt bench`: DiffBench, its tasks, its gates and its leaderboard files."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffopt.commands import add_json, print_json
from diffopt.diffbench.command import add_arguments as add_search
from diffopt.diffbench.command import searched
from diffopt.ir.errors import DiffoptError
from diffopt.llm_options import add_llm

if TYPE_CHECKING:
    from diffopt.bench.suite.measuring import Protocol
    from diffopt.bench.suite.running import Arm, Choice

DIRECT = "direct"
"""The arm whose scripts a language model writes; it needs an endpoint or a transcript."""

TEXT = "DiffBench: run its tasks, write its report, check what others hand in"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    group = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listed = group.add_parser(
        "tasks", help="print the tasks: words, specification, expected attributes, reference code"
    )
    _add_choice(listed)
    add_json(listed)
    run_parser = group.add_parser("run", help="answer tasks with an arm, judge the code, measure, write the results")
    _add_choice(run_parser)
    run_parser.add_argument(
        "--arm",
        default="rules",
        help="who answers: rules, or direct (a language model); with --answers, its name (default: %(default)s)",
    )
    run_parser.add_argument("--answers", metavar="DIR", help="a folder of scripts TASK.py, instead of an arm of ours")
    run_parser.add_argument("--static", action="store_true", help="measure nothing: the static gate alone")
    run_parser.add_argument("--minutes", type=float, help="start no measurement after these; a later run goes on")
    run_parser.add_argument("--store", metavar="FILE", help="of what was measured (default: beside the results)")
    run_parser.add_argument(
        "--targets", metavar="FILE", help="what `diffopt bench search` wrote on this machine, for levels 4 and 5"
    )
    run_parser.add_argument("-o", "--output", default="out/diffbench.json.gz", help="(default: %(default)s)")
    _add_protocol(run_parser)
    add_llm(run_parser, passes=argparse.SUPPRESS)
    add_json(run_parser)
    search = group.add_parser("search", help="set the targets of levels 4 and 5, and let arms search at equal budgets")
    add_search(search)
    _add_protocol(search)
    add_json(search)
    report = group.add_parser("report", help="write the page of results")
    report.add_argument(
        "results", nargs="+", metavar="RESULTS", help="files that `diffopt bench run` and `diffopt bench search` wrote"
    )
    report.add_argument("-o", "--output", help="a Markdown file (default: standard output)")
    submit = group.add_parser("submit", help="check results: judge them again, and measure a sample of them again")
    submit.add_argument("results", metavar="RESULTS", help="a file that `diffopt bench run` wrote")
    submit.add_argument("--sample", type=int, default=3, help="tasks to measure again (default: %(default)s)")
    submit.add_argument("--sample-seed", type=int, help="decides which tasks (default: one that nobody knows)")
    submit.add_argument("--board", metavar="FILE", help="a leaderboard to add the results to, where they are accepted")
    submit.add_argument("--targets", metavar="FILE", help="what `diffopt bench search` wrote here, for levels 4 and 5")
    submit.add_argument("--target", default="cpu", help="where to measure: cpu or cuda[:N] (default: %(default)s)")
    submit.add_argument("--threads", type=int, help="of each process (default: as the machine has it)")
    add_json(submit)


def run(options: argparse.Namespace) -> int:
    """Run the command; 1 where tasks failed a gate or results are not accepted."""
    return int(_ACTIONS[options.action](options))


def _tasks(options: argparse.Namespace) -> int:
    from diffopt.bench.suite.running import chosen

    found = chosen(_choice(options))
    if options.json:
        print_json({"tasks": [task.to_json() for task in found]})
    else:
        sys.stdout.writelines(f"{task.id}  {task.prompt}\n" for task in found)
        if any(task.target is not None for task in found):
            _say("targets in braces are set on the machine at hand, by diffopt bench search")
    return 0


def _run(options: argparse.Namespace) -> int:
    from diffopt.bench.disk import scratch
    from diffopt.bench.suite.results import write_results
    from diffopt.bench.suite.running import ARMS, chosen, folder_arm, run_tasks
    from diffopt.bench.suite.store import MeasurementStore

    if options.answers is None and options.arm not in (*ARMS, DIRECT):
        there = ", ".join((*ARMS, DIRECT))
        raise DiffoptError(f"no arm {options.arm!r}", where="--arm", hint=f"there is {there}, or give --answers")
    if options.minutes is not None and options.minutes < 0:
        raise DiffoptError("must not be negative", where="--minutes")
    asked, output = chosen(_choice(options)), Path(options.output)
    if options.answers is not None:
        arm = folder_arm(Path(options.answers))
    else:
        arm = _direct_arm(options, output) if options.arm == DIRECT else ARMS[options.arm]
    store = MeasurementStore(Path(options.store) if options.store else output.with_name(f"{output.name}.store"))
    seconds = 0.0 if options.static else None if options.minutes is None else 60 * options.minutes
    with scratch("diffopt-bench-") as work:
        results = run_tasks(
            asked, arm, options.arm, store,
            protocol=_protocol(options), work=work, seed=options.seed, seconds=seconds, targets=_targets(options), listen=_say,
        )  # fmt: skip
    write_results(output, results)
    statuses = [str(results.verdicts[task.id]["status"]) for task in asked]
    if options.json:
        print_json({"results": str(output), "verdicts": results.verdicts})
    else:
        _print_scores(asked, results.verdicts)
        print(f"written: {output}")
    return 1 if {"failed", "no answer"} & set(statuses) else 0


def _targets(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    from diffopt.bench.suite.searches import read_searches, searches_faults

    if not options.targets:
        return {}
    found = read_searches(Path(options.targets))
    for fault in searches_faults(found):
        raise DiffoptError(fault, where=options.targets, hint="search again")
    return found.targets


def _search(options: argparse.Namespace) -> int:
    from diffopt.bench.suite.page_searches import lines_of

    found = searched(options, _protocol(options), _say)
    lines = lines_of(found)
    if options.json:
        print_json({"searches": options.output, "targets": found.targets, "lines": lines})
    else:
        sys.stdout.writelines(f"{line}\n" for line in lines)
        print(f"written: {options.output}")
    return 0


def _direct_arm(options: argparse.Namespace, output: Path) -> Arm:
    """Return the arm that has a language model write scripts; its transcript stands beside the results."""
    from diffopt.agents import client_for, transcript_for
    from diffopt.diffbench.direct_arm import DirectArm
    from diffopt.llm_options import llm_settings

    llm = llm_settings(options)
    if llm.passes:
        raise DiffoptError("the arm writes scripts, no passes", where="--llm-passes", hint="leave it out")
    client = client_for(os.environ, llm)
    return DirectArm(client, transcript_for(client, llm, output.with_name(f"{output.name}.llm.jsonl")))


def _report(options: argparse.Namespace) -> int:
    from diffopt.bench.disk import write_text
    from diffopt.bench.suite.page import page
    from diffopt.bench.suite.results import read_json, results_of
    from diffopt.bench.suite.searches import FORMAT as of_searches
    from diffopt.bench.suite.searches import searches_faults, searches_of
    from diffopt.bench.suite.submission import judged_again

    read = {name: read_json(Path(name)) for name in options.results}
    aimed = {name: data for name, data in read.items() if isinstance(data, dict) and data.get("format") == of_searches}
    searches = [searches_of(data, Path(name)) for name, data in aimed.items()]
    faults = {name: searches_faults(one) for name, one in zip(aimed, searches, strict=True)}
    targets = {base: target for one in searches for base, target in one.targets.items()}
    found = []
    for name in (name for name in read if name not in aimed):
        faults[name], results = judged_again(results_of(read[name], Path(name)), targets)
        found.append(results)
    for name, fault in ((name, fault) for name, said in faults.items() for fault in said):
        raise DiffoptError(fault, where=name, hint="run it again")
    text = page(found, searches)
    if options.output:
        write_text(Path(options.output), text)
    else:
        sys.stdout.write(text)
    return 0


def _submit(options: argparse.Namespace) -> int:
    from diffopt.bench.disk import scratch
    from diffopt.bench.suite.board import add_to_board
    from diffopt.bench.suite.measuring import Protocol
    from diffopt.bench.suite.results import read_results
    from diffopt.bench.suite.submission import check, judged_again

    _check_machine(options)
    if options.sample < 0:
        raise DiffoptError("must not be negative", where="--sample")
    path, targets = Path(options.results), _targets(options)
    results = read_results(path)
    said = results.protocol
    try:
        pairs, aimed = ((int(said[name][0]), int(said[name][1])) for name in ("pairs", "aimed_pairs"))
        protocol = Protocol(
            int(said["prompts"]), pairs, aimed, int(said["seed"]), target=options.target, threads=options.threads
        )
    except (KeyError, TypeError, ValueError, IndexError):
        raise DiffoptError("its protocol cannot be read", str(path)) from None
    seed = secrets.randbits(64) if options.sample_seed is None else options.sample_seed
    with scratch("diffopt-bench-") as work:
        found = check(
            results, work=work, sample=options.sample, seed=seed, protocol=protocol, targets=targets, listen=_say
        )
    if found.accepted and options.board:
        add_to_board(Path(options.board), path, judged_again(results, targets)[1], found.measured_again)
    if options.json:
        print_json(
            {"accepted": found.accepted, "faults": list(found.faults), "measured_again": list(found.measured_again)}
        )
    else:
        sys.stdout.writelines(f"refused: {fault}\n" for fault in found.faults)
        again = f", measured again: {', '.join(found.measured_again) or 'nothing'}"
        print(f"{'accepted' if found.accepted else 'not accepted'}{again}")
    return 0 if found.accepted else 1


_ACTIONS = {"tasks": _tasks, "run": _run, "search": _search, "report": _report, "submit": _submit}


def _add_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--levels", default="", metavar="1,2", help="of these levels (default: all)")
    parser.add_argument("--ids", default="", metavar="L1-001,...", help="these tasks")
    parser.add_argument("--count", type=int, help="so many of each level, spread over it; 8 is the smoke subset")
    parser.add_argument("--seed", type=int, default=0, help="of the tasks: 0 is public, others are held out")


def _add_protocol(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prompts", type=int, default=10, help="held-out prompts a program (default: %(default)s)")
    parser.add_argument("--target", default="cpu", help="cpu or cuda[:N] (default: %(default)s)")
    parser.add_argument("--threads", type=int, help="of each process (default: as the machine has it)")


def _choice(options: argparse.Namespace) -> Choice:
    from diffopt.bench.suite.running import Choice

    levels = [text for text in options.levels.split(",") if text]
    if any(text not in "12345" or len(text) != 1 for text in levels):
        raise DiffoptError(f"{options.levels!r} are no levels", where="--levels", hint="levels are 1 to 5; write 1,2")
    if options.seed < 0 or (options.count is not None and options.count < 1):
        raise DiffoptError("a seed is 0 or more, a count 1 or more", where="--seed, --count")
    ids = tuple(text for text in options.ids.split(",") if text)
    return Choice(tuple(map(int, levels)), ids, options.count, options.seed)


def _protocol(options: argparse.Namespace) -> Protocol:
    from diffopt.bench.suite.measuring import Protocol

    _check_machine(options)
    if options.prompts < 4:
        raise DiffoptError("must be at least 4", where="--prompts")
    return Protocol(prompts=options.prompts, target=options.target, threads=options.threads)


def _check_machine(options: argparse.Namespace) -> None:
    from diffopt.bench.device import check_target

    check_target(options.target)
    if options.threads is not None and options.threads < 1:
        raise DiffoptError("must be at least 1", where="--threads")


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _print_scores(asked: Any, verdicts: Any) -> None:
    from diffopt.bench.suite.judging import score
    from diffopt.bench.suite.results import levels

    for level in levels(asked):
        found = score([task for task in asked if task.level == level], verdicts)
        counts = ", ".join(f"{count} {status}" for status, count in found.statuses.items())
        print(f"level {level}: {counts}; static gate {found.static} of {found.answered} answers")
    for identity, verdict in verdicts.items():
        if verdict["status"] in ("failed", "no answer"):
            print(f"{identity}: {verdict['status']}: {'; '.join(verdict['reasons'])}")
