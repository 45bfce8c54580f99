"""All ordered pairs of passes: what the verifier says of each, and whether those it allows run.

python -m diffopt.pairs          writes docs/pairs.md
python -m diffopt.pairs --run    runs the allowed pairs on the built-in model first (`make pairs`)
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import TypeAlias

from xdsl.dialects.builtin import ModuleOp

from diffopt.bench.models import BUILTINS, describe
from diffopt.ir.description import JSON, build_module
from diffopt.ir.emit_pipeline import emit_pipeline
from diffopt.ir.identity import context
from diffopt.pair_runs import run_programs
from diffopt.passes import rules
from diffopt.passes.base import DiffusionPass, Refusal, registry
from diffopt.passes.pipeline import Trace, run

Pair: TypeAlias = tuple[str, str]

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "pairs.md"
RESULTS = ROOT / "bench" / "results" / "pairs-cpu.json"
MODELS = ("demo:shapes", "demo:shapes-pixart")
"""A UNet and a transformer: what is for one of them alone is refused on the other."""

INTRODUCTION = """\
# Pairs of passes

Written by `python -m diffopt.pairs`, not by hand. Rows come first, columns second, each with its default options (or
those of its first example), on a built-in UNet and on a built-in transformer, at 25 steps. `+` the verifier allows the
pair; a letter stands for the rule that refuses it; the sentences are below. A pass that is refused alone (row and column
full of one letter) is not for this model.

`make pairs` runs what each allowed pair comes to, every program once and in a process of its own, at {} steps, or where the
verifier allows the pair only from more on, at {} or {}. Compilers are given their eager backend; adapter and small
autoencoder are untrained stand-ins, and the generated code of `rewrite` is one that changes nothing.
"""


def asked(pass_type: type[DiffusionPass], module: ModuleOp) -> DiffusionPass:
    """Return a pass as one asks for it: by default, as its first example does, or as it fits the module."""
    if pass_type.on_request:
        return next(Trace.parse(example.trace).passes[0] for example in pass_type.examples if example.expect)
    if pass_type().refusal(module) is None:
        return pass_type()
    return next(iter(pass_type.schedule_space(context(), module)), pass_type())


STEPS = 25
"""Of the module that the page is about."""
SHORTER = (4, 12, STEPS)
"""Steps that a pair is run at: the fewest at which the verifier still allows it."""


def standard_module(model: str = MODELS[0], steps: int = STEPS) -> ModuleOp:
    """Return a built-in model as the pairs are tried on it."""
    return build_module(describe(BUILTINS[model], steps=steps))


def verdicts(module: ModuleOp, pairs: Collection[Pair] | None = None) -> dict[Pair, ModuleOp | Refusal]:
    """Return what the verifier makes of the ordered pairs asked for, of all if None."""
    instances = [asked(pass_type, module) for pass_type in registry().values()]
    found: dict[Pair, ModuleOp | Refusal] = {}
    for one in instances:
        others = [other for other in instances if pairs is None or (one.name, other.name) in pairs]
        first = run(Trace((one,)), module) if others else None
        for other in others:
            found[one.name, other.name] = first if isinstance(first, Refusal) else run(Trace((other,)), first or module)
    return found


def shortest(model: str, pairs: Collection[Pair]) -> dict[Pair, ModuleOp]:
    """Return each pair that the verifier allows on a built-in model, at the fewest steps at which it does."""
    allowed = {pair for pair, verdict in verdicts(standard_module(model), pairs).items() if _is_module(verdict)}
    found: dict[Pair, ModuleOp] = {}
    for steps in SHORTER:
        tried = verdicts(standard_module(model, steps), allowed - found.keys())
        found |= {pair: verdict for pair, verdict in tried.items() if not isinstance(verdict, Refusal)}
    return found


def _is_module(verdict: ModuleOp | Refusal) -> bool:
    return not isinstance(verdict, Refusal)


def page(verdicts_of: Mapping[str, Mapping[Pair, ModuleOp | Refusal]], ran: Mapping[str, Mapping[str, JSON]]) -> str:
    """Return the page of all pairs.

    verdicts_of: what `verdicts` found, by model; ran: what `run_pairs` found, by model.
    """
    lines = [INTRODUCTION.format(*SHORTER)]
    for model, found in verdicts_of.items():
        lines += [*_section(model, found, ran.get(model, {})), ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def _section(model: str, found: Mapping[Pair, ModuleOp | Refusal], ran: Mapping[str, JSON]) -> Iterator[str]:
    names = list(registry())
    rules = sorted({verdict.rule or "range" for verdict in found.values() if isinstance(verdict, Refusal)})
    letters = {rule: chr(ord("a") + index) for index, rule in enumerate(rules)}
    allowed = sum(map(_is_module, found.values()))
    yield from (f"## {model}", "")
    yield f"{len(found)} pairs: {allowed} allowed, {len(found) - allowed} refused. {_ran(ran, found)}"
    yield from ("", "| rule | letter |", "| --- | --- |")
    yield from (f"| {rule} | {letter} |" for rule, letter in letters.items())
    width = max(map(len, names))
    yield from ("", "```text", " " * (width + 4) + " ".join(f"{index:>2}" for index in range(1, len(names) + 1)))
    for index, name in enumerate(names, 1):
        cells = [_cell(found[name, other], letters) for other in names]
        yield f"{index:>2} {name:<{width}} " + " ".join(f"{cell:>2}" for cell in cells)
    yield from ("```", "", f"### Sentences on {model}", "")
    sentences: dict[str, list[str]] = defaultdict(list)
    for (one, other), verdict in found.items():
        if isinstance(verdict, Refusal):
            sentences[str(verdict)].append(f"{one} → {other}")
    for sentence, pairs in sorted(sentences.items()):
        shown = ", ".join(pairs[:3]) + (f" and {len(pairs) - 3} more" if len(pairs) > 3 else "")
        yield f"- {sentence.replace(chr(10), ' ')}: {shown}"


def _cell(verdict: ModuleOp | Refusal, letters: Mapping[str, str]) -> str:
    return letters[verdict.rule or "range"] if isinstance(verdict, Refusal) else "+"


def _ran(ran: Mapping[str, JSON], found: Mapping[Pair, ModuleOp | Refusal]) -> str:
    if not ran:
        return "The allowed pairs were not run yet: `make pairs` does it."
    given = ran.get("crashed")
    crashed = given if isinstance(given, Mapping) else {}
    tried = int(str(ran["ran"])) + int(str(ran["refused"])) + len(crashed)
    text = (
        f"On {ran['machine']}: of {ran['allowed']} allowed pairs, which come to {ran['programs']} programs, {tried} were "
        f"tried; {ran['ran']} made an image, {ran['refused']} were refused with a sentence, by the target or as built, and "
        f"{len(crashed)} crashed."
    )
    lines = [text]
    reasons = ran.get("reasons")
    if isinstance(reasons, Mapping) and reasons:
        lines += ["", "| refused, by the target or as built | pairs |", "| --- | --- |"]
        lines += [f"| {reason} | {count} |" for reason, count in sorted(reasons.items())]
    for pair, why in crashed.items():
        one, _, other = pair.partition(",")
        since = isinstance(found.get((one, other)), Refusal)
        lines += ["", f"{pair}{' (refused since)' if since else ''}: {why}."]
    return "\n".join(lines)


def run_pairs(
    model: str, allowed: Mapping[Pair, ModuleOp], known: Mapping[str, JSON], *, processes: int
) -> Iterator[dict[str, JSON]]:
    """Run what each allowed pair emits, pairs of one program once; yield what came of all so far.

    model: the built-in model of the modules.
    known: outcomes of an earlier run by the program's digest; what made an image there is not run again.
    """
    import platform

    import torch

    pairs_of: dict[str, list[str]] = defaultdict(list)
    outcomes: dict[str, str] = {}
    for (one, other), module in allowed.items():
        code = emit_pipeline(_without_origins(module), lambda name, text: text)
        if unfit := next(filter(None, (rules.unfit(registry()[name], "cpu") for name in (one, other))), None):
            outcomes[code] = f"refused: {unfit.reason}"
        pairs_of[code].append(f"{one},{other}")
    outcomes |= {code: "" for code in pairs_of if known.get(_digest(code)) == "" and code not in outcomes}

    def so_far() -> dict[str, JSON]:
        crashed: dict[str, JSON] = {}
        reasons: dict[str, int] = defaultdict(int)
        for code, outcome in outcomes.items():
            if outcome.startswith("refused: "):
                reasons[outcome.removeprefix("refused: ")] += len(pairs_of[code])
            elif outcome:
                crashed |= dict.fromkeys(pairs_of[code], outcome)
        return {
            "machine": f"{platform.machine()}, torch {torch.__version__}",
            "allowed": sum(map(len, pairs_of.values())),
            "programs": len(pairs_of),
            "ran": sum(len(pairs_of[code]) for code, outcome in outcomes.items() if not outcome),
            "refused": sum(reasons.values()),
            "reasons": {**reasons},
            "crashed": crashed,
            "outcomes": dict(sorted((_digest(code), outcome) for code, outcome in outcomes.items())),
        }

    yield so_far()
    left, directory = [code for code in pairs_of if code not in outcomes], BUILTINS[model].directory
    for code, outcome in run_programs(left, directory, processes=processes):
        outcomes[code] = outcome
        print(f"{' '.join(pairs_of[code])}: {outcome or 'ran'}", file=sys.stderr, flush=True)
        yield so_far()


def _digest(code: str) -> str:
    """Return a name of a program that does not depend on where the repository lies."""
    return hashlib.sha256(code.replace(str(ROOT), "").encode()).hexdigest()[:12]


def _without_origins(module: ModuleOp) -> ModuleOp:
    """Return a copy that does not say which pass did what, so that two orders of the same are one program."""
    copy = module.clone()
    for op in copy.walk():
        op.attributes.pop("origin", None)
    return copy


def main(argv: list[str] | None = None) -> int:
    """Write the page; run the pairs first if asked to. Return 1 if one crashed."""
    parser = argparse.ArgumentParser(prog="python -m diffopt.pairs", description="All ordered pairs of passes.")
    parser.add_argument("--run", action="store_true", help="run what the verifier allows, a few steps each")
    parser.add_argument("--model", action="append", choices=MODELS, help="run on this one, and not on all")
    parser.add_argument("--only", default="", help="run only pairs with one of these passes, by commas; keeps nothing")
    parser.add_argument(
        "--processes", type=int, default=min(os.cpu_count() or 1, 4), help="how many beside one another"
    )
    parser.add_argument("--resume", action="store_true", help="run only what has not made an image before")
    arguments = parser.parse_args(argv)
    only = set(filter(None, arguments.only.split(",")))
    results: dict[str, dict[str, JSON]] = read_results()
    chosen = {(one, other) for one, other in product(registry(), repeat=2) if not only or only & {one, other}}
    crashed = False
    for model in arguments.model or MODELS if arguments.run else ():
        known = results.get(model, {}).get("outcomes") if arguments.resume else {}
        known = known if isinstance(known, Mapping) else {}
        for found in run_pairs(model, shortest(model, chosen), known, processes=arguments.processes):
            if not only:
                results[model] = found
                RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        crashed |= bool(found["crashed"])
    if not only:
        PAGE.write_text(page(all_verdicts(), results), encoding="utf-8")
    return 1 if crashed else 0


def read_results() -> dict[str, dict[str, JSON]]:
    """Return what the last runs found, by model."""
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}


def all_verdicts() -> dict[str, dict[Pair, ModuleOp | Refusal]]:
    """Return the verifier's answers for all pairs on each model."""
    return {model: verdicts(standard_module(model)) for model in MODELS}


if __name__ == "__main__":
    raise SystemExit(main())
