"""`diffopt direct`: a language model writes the whole accelerated script, judged by three gates."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from diffopt.commands import add_json, add_set, print_json, settings_of, size_of
from diffopt.ir.errors import DiffoptError
from diffopt.llm_options import add_llm, llm_settings
from diffopt.sources import check_exists

TEXT = "have a language model write the whole accelerated script, and judge it by three gates"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "source", metavar="SOURCE", help="the reference: a script, a model directory, or a built-in model"
    )
    parser.add_argument("--task", required=True, metavar="TEXT", help="what is wanted, in words; or @FILE")
    parser.add_argument("-o", "--out", default="direct.py", help="where the script goes (default: %(default)s)")
    parser.add_argument(
        "--require", action="append", default=[], metavar="WHAT",
        help="gate 1: NAME, CALL() or ARGUMENT=VALUE that the script must hold; may be given again",
    )  # fmt: skip
    parser.add_argument(
        "--tier", choices=("exact", "near", "traded"), default="near", help="gate 2; default: %(default)s"
    )
    parser.add_argument(
        "--min-fidelity", type=float, default=0.0, metavar="DB", help="gate 2: least median paired PSNR"
    )
    parser.add_argument("--min-speedup", type=float, default=1.0, metavar="X", help="gate 3; default: %(default)s")
    parser.add_argument("--max-latency", type=float, metavar="MS", help="gate 3: most milliseconds a call")
    parser.add_argument(
        "--budget", type=int, default=8, metavar="N", help="most scripts measured (default: %(default)s)"
    )
    parser.add_argument(
        "--reads", action="append", default=[], metavar="PATH",
        help="what the script may read beside libraries and the model; may be given again",
    )  # fmt: skip
    parser.add_argument("--prompts", metavar="FILE", help="one prompt a line; half of them are held out")
    parser.add_argument("--size", metavar="HxW", help="of the images, where the reference does not tell")
    parser.add_argument("--target", default="cpu", help="cpu or cuda[:N] (default: %(default)s)")
    add_llm(parser, passes=argparse.SUPPRESS)
    parser.add_argument("--resume", action="store_true", help="go on with a run that was stopped")
    parser.add_argument("--force", action="store_true", help="replace a script, or start a run again")
    parser.add_argument("--seed", type=int, default=0, help="of the order of pairs and of the prompts' choice")
    add_set(parser)
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command; 1 where no script passes."""
    check_exists(options.source, settings_of(options))
    from diffopt.bench.device import check_target
    from diffopt.direct_run import Wanted, direct
    from diffopt.display import Display, print_lines
    from diffopt.llm.direct import Attributes

    if options.seed < 0:
        raise DiffoptError("must not be negative", where="--seed")
    if options.llm_passes:
        raise DiffoptError("direct mode writes scripts, no passes", where="--llm-passes", hint="leave it out")
    check_target(options.target)
    wanted = Wanted(
        Attributes.parse(options.require),
        options.tier,
        options.min_fidelity,
        options.min_speedup,
        None if options.max_latency is None else options.max_latency / 1e3,
        options.budget,
    )
    with Display(quiet=options.json) as display:
        verdict = direct(
            options.source,
            _task(options.task),
            options.out,
            wanted,
            environment=os.environ,
            llm=llm_settings(options),
            reads=options.reads,
            prompts=options.prompts,
            size=size_of(options.size),
            target=options.target,
            settings=settings_of(options),
            resume=options.resume,
            force=options.force,
            seed=options.seed,
            listen=display,
        )
    if options.json:
        print_json(verdict)
    else:
        print_lines(_lines(verdict, options.out))
    if not verdict["passed"]:
        sys.stderr.write(f"diffopt: no script passes; the last one: {_why(verdict)}\n")
    return 0 if verdict["passed"] else 1


def _task(text: str) -> str:
    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise DiffoptError("the task is not UTF-8 text", where=text[1:]) from None


def _lines(verdict: dict[str, Any], out: str) -> list[str]:
    from diffopt.llm.answer import one_line

    llm, sandbox = verdict["llm"], verdict["sandbox"]
    lines = [f"{each['script']}  {one_line(each['problem'], 100) or 'passes'}" for each in verdict["attempts"]]
    if verdict["passed"]:
        latency, fidelity = verdict["heldout"]["latency"], verdict["heldout"]["fidelity"]
        images = f"{fidelity['psnr_median']:.1f} dB, {verdict['heldout']['tier']}"
        lines.append(f"held out  {latency['ratio']:.2f}x [{latency['lo']:.2f}, {latency['hi']:.2f}], {images}")
        lines.append(f"script    {out}: read it before you run it; outside of diffopt nothing confines it")
    return [
        *lines,
        f"sandbox   level {sandbox['level']}, {sandbox['name']} ({', '.join(sandbox['guards'])})",
        f"model     {llm['model']}: {llm['calls']} calls, {llm['prompt_tokens']} + {llm['answer_tokens']} tokens",
    ]


def _why(verdict: dict[str, Any]) -> str:
    from diffopt.llm.answer import one_line

    problems = verdict["llm"]["problems"]
    said = verdict["reason"] or "no script was written"
    gate = f"gate {verdict['gate']}: " if verdict["gate"] else ""
    asked = f" ({problems[-1]['status']}: {problems[-1]['message']})" if problems else ""
    return f"{gate}{one_line(said)}{asked}"
