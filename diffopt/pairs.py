"""All ordered pairs of passes: what the verifier says of each, and whether those it allows run.

python -m diffopt.pairs          writes docs/pairs.md
python -m diffopt.pairs --run    runs the allowed pairs on the built-in model first, four steps each (`make pairs`)
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.description import JSON, build_module
from diffopt.ir.emit_pipeline import emit_pipeline
from diffopt.ir.errors import DiffoptError
from diffopt.ir.identity import context
from diffopt.ir.source_directory import describe_directory
from diffopt.pair_runs import run_programs
from diffopt.passes.base import DiffusionPass, Refusal, registry
from diffopt.passes.pipeline import Trace, run

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "pairs.md"
RESULTS = ROOT / "bench" / "results" / "pairs-cpu.json"
MODEL = ROOT / "bench" / "models" / "shapes" / "weights"

INTRODUCTION = """\
# Pairs of passes

Written by `python -m diffopt.pairs`, not by hand. Rows come first, columns second, each with its default options (or
those of its first example), on the built-in UNet model at 25 steps. `+` the verifier allows the pair; a letter stands
for the rule that refuses it; the sentences are below. A pass that is refused alone (row and column full of one letter)
is not for this model.
"""


def asked(pass_type: type[DiffusionPass], module: ModuleOp) -> DiffusionPass:
    """Return a pass as one asks for it: by default, as its first example does, or as it fits the module."""
    if pass_type.on_request:
        return next(Trace.parse(example.trace).passes[0] for example in pass_type.examples if example.expect)
    if pass_type().refusal(module) is None:
        return pass_type()
    return next(iter(pass_type.schedule_space(context(), module)), pass_type())


def standard_module(steps: int = 25) -> ModuleOp:
    """Return the built-in model as the pairs are tried on it."""
    return build_module(describe_directory(MODEL, steps=steps, guidance=2.0, name="shapes"))


def verdicts(module: ModuleOp) -> dict[tuple[str, str], ModuleOp | Refusal]:
    """Return what the verifier makes of each ordered pair."""
    instances = [asked(pass_type, module) for pass_type in registry().values()]
    found: dict[tuple[str, str], ModuleOp | Refusal] = {}
    for one in instances:
        first = run(Trace((one,)), module)
        for other in instances:
            found[one.name, other.name] = first if isinstance(first, Refusal) else run(Trace((other,)), first)
    return found


def page(found: Mapping[tuple[str, str], ModuleOp | Refusal], ran: Mapping[str, JSON]) -> str:
    """Return the page of all pairs."""
    names = list(registry())
    rules = sorted({verdict.rule or "range" for verdict in found.values() if isinstance(verdict, Refusal)})
    letters = {rule: chr(ord("a") + index) for index, rule in enumerate(rules)}
    lines = [INTRODUCTION]
    allowed = sum(not isinstance(verdict, Refusal) for verdict in found.values())
    lines += [f"{len(found)} pairs: {allowed} allowed, {len(found) - allowed} refused.", "", _ran(ran, found), ""]
    lines += ["| rule | letter |", "| --- | --- |"]
    lines += [f"| {rule} | {letter} |" for rule, letter in letters.items()]
    lines += ["", "```text"]
    width = max(map(len, names))
    lines += [" " * (width + 4) + " ".join(f"{index:>2}" for index in range(1, len(names) + 1))]
    for index, name in enumerate(names, 1):
        cells = [_cell(found[name, other], letters) for other in names]
        lines.append(f"{index:>2} {name:<{width}} " + " ".join(f"{cell:>2}" for cell in cells))
    lines += ["```", "", "## Sentences", ""]
    sentences: dict[str, list[str]] = defaultdict(list)
    for (one, other), verdict in found.items():
        if isinstance(verdict, Refusal):
            sentences[str(verdict)].append(f"{one} → {other}")
    for sentence, pairs in sorted(sentences.items()):
        shown = ", ".join(pairs[:3]) + (f" and {len(pairs) - 3} more" if len(pairs) > 3 else "")
        lines.append(f"- {sentence.replace(chr(10), ' ')}: {shown}")
    return "\n".join(lines) + "\n"


def _cell(verdict: ModuleOp | Refusal, letters: Mapping[str, str]) -> str:
    return letters[verdict.rule or "range"] if isinstance(verdict, Refusal) else "+"


def _ran(ran: Mapping[str, JSON], found: Mapping[tuple[str, str], ModuleOp | Refusal]) -> str:
    if not ran:
        return "The allowed pairs were not run yet: `make pairs` does it."
    given = ran.get("crashed")
    crashed = given if isinstance(given, Mapping) else {}
    tried = int(str(ran["ran"])) + int(str(ran["refused"])) + len(crashed)
    text = (
        f"`make pairs` on {ran['machine']}: of the {ran['allowed']} allowed at four steps ({ran.get('programs', '?')} "
    )
    text += f"programs, as many orders come to the same), {tried} were tried; {ran['ran']} ran, {ran['refused']} were "
    text += (
        f"refused with a sentence as they were built, {len(crashed)} crashed. Compilers were given their eager backend "
    )
    text += "there; adapter and small autoencoder were untrained stand-ins."
    reasons = ran.get("reasons")
    for reason, count in (reasons if isinstance(reasons, Mapping) else {}).items():
        text += f" Refused as built, {count}: {reason}."
    for pair, why in crashed.items():
        one, _, other = pair.partition(",")
        since = isinstance(found.get((one, other)), Refusal)
        text += f" {pair}{' (refused since)' if since else ''}: {why}."
    return text


def run_pairs(
    found: Mapping[tuple[str, str], ModuleOp | Refusal], known: Mapping[str, JSON], *, processes: int
) -> Iterator[dict[str, JSON]]:
    """Run what each allowed pair emits, pairs of one program once; yield what came of all so far.

    known: outcomes of an earlier run by the program's digest; these are not run again.
    """
    import platform

    import torch

    pairs_of: dict[str, list[str]] = defaultdict(list)
    outcomes: dict[str, str] = {}
    for (one, other), verdict in found.items():
        if isinstance(verdict, Refusal):
            continue
        try:
            code = emit_pipeline(_without_origins(verdict))
            if any(registry()[name].devices == ("cuda",) for name in (one, other)):
                outcomes[code] = "refused: kernels are for GPUs, and are only interpreted on a processor"
        except DiffoptError as error:  # code that a language model wrote, and that is not here
            code, outcomes[code] = f"{one},{other}", f"refused: {error}"
        pairs_of[code].append(f"{one},{other}")
    for code in pairs_of:
        if (seen := known.get(_digest(code))) is not None:
            outcomes[code] = str(seen)

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
            "outcomes": {_digest(code): outcome for code, outcome in sorted(outcomes.items())},
        }

    yield so_far()
    for code, outcome in run_programs([c for c in pairs_of if c not in outcomes], MODEL, processes=processes):
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
    parser.add_argument("--run", action="store_true", help="run what the verifier allows, four steps each")
    parser.add_argument("--only", default="", help="run only pairs with one of these passes, by commas")
    parser.add_argument(
        "--processes", type=int, default=min(os.cpu_count() or 1, 4), help="how many beside one another"
    )
    parser.add_argument("--resume", action="store_true", help="keep the outcomes of programs that were run before")
    arguments = parser.parse_args(argv)
    found = verdicts(standard_module())
    if arguments.run:
        short = verdicts(standard_module(steps=4))
        only = set(filter(None, arguments.only.split(",")))
        chosen = {pair: verdict for pair, verdict in short.items() if not only or only & set(pair)}
        results: dict[str, JSON] = {}
        earlier = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() and arguments.resume else {}
        for results in run_pairs(chosen, earlier.get("outcomes", {}), processes=arguments.processes):
            if not only:
                RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        crashed = results.get("crashed")
    else:
        crashed = None
    ran = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    PAGE.write_text(page(found, ran), encoding="utf-8")
    return 1 if crashed else 0


if __name__ == "__main__":
    raise SystemExit(main())
