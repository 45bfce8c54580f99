"""Whether `bisect` names a planted bad pass: `python -m diffopt.studies.faults` writes bench/results/faults-cpu.json."""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffopt.bench import device
from diffopt.bench.evaluate import Evaluator
from diffopt.bench.workload import Workload
from diffopt.bisection import find_fault
from diffopt.passes.pipeline import Trace
from diffopt.session import program
from diffopt.sources import lift

RESULTS = Path(__file__).resolve().parents[2] / "bench" / "results" / "faults-cpu.json"
STEPS, PROMPTS = 8, 4

GOOD = (
    "reuse-prompt-embeddings",
    "channels-last",
    "fuse-qkv",
    "constant-embeddings",
    "vae-channels-last",
    "hoist-cross-attention",
)
"""Passes that leave the images of demo:shapes as they are."""

PLANTED: tuple[tuple[str, int], ...] = (
    ("guidance-window{stop=0.1}", 0),
    ("guidance-window{stop=0.1}", 3),
    ("guidance-off", 2),
    ("guidance-off", 5),
    ("reduce-steps{steps=1}", 0),
    ("reduce-steps{steps=1}", 4),
    ("cache-features{interval=4}", 3),
    ("cache-features{interval=4}", 5),
    ('fit-timesteps{timesteps="999,950,900"}', 2),
    ('fit-timesteps{timesteps="999,950,900"}', 1),
)
"""A bad pass, and its place among the good ones."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Bisect every pipeline; one that a pass makes impossible keeps the good passes that fit."""
    parser = argparse.ArgumentParser(prog="python -m diffopt.studies.faults", description=__doc__)
    parser.add_argument(
        "--only", type=int, nargs="+", help="numbers of the pipelines, from 0; the others stay as they are"
    )
    parser.add_argument("-o", "--out", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    source = lift("demo:shapes", {"steps": str(STEPS)})
    assert source.builtin is not None
    prompts = source.builtin.prompts("search", 2 * PROMPTS, 0)
    work = Workload(tuple(prompts[:PROMPTS]), tuple(prompts[PROMPTS:]), 0, 64, 64)
    with (
        tempfile.TemporaryDirectory(prefix="diffopt-faults-") as scratch,
        Evaluator(
            program(source.module, "baseline"),
            work,
            work=Path(scratch) / "work",
            engines=Path(scratch) / "engines",
            scorer=source.builtin.scorer(),
        ) as evaluator,
    ):
        for number in given.only or range(len(PLANTED)):
            case = _case(evaluator, source.module, *PLANTED[number])
            study = json.loads(given.out.read_text()) if given.out.is_file() else {"cases": {}}
            study["cases"][str(number)] = case
            study |= {"machine": device.environment(), "command": "python -m diffopt.studies.faults"}
            given.out.write_text(json.dumps(study, indent=1) + "\n", encoding="utf-8")
            print(
                f"{number} {case['planted']}: {case['verdict']}, {case['measured']} of {case['allowed']:.1f}",
                flush=True,
            )


def _case(evaluator: Evaluator, module: Any, bad: str, place: int) -> dict[str, Any]:
    from diffopt.passes.base import Refusal
    from diffopt.passes.pipeline import run

    texts: list[str] = []
    for text in (*GOOD[:place], bad, *GOOD[place:]):
        if not isinstance(run(Trace.parse(",".join([*texts, text])), module), Refusal):
            texts.append(text)
    trace = Trace.parse(",".join(texts))
    planted = str(Trace.parse(bad))
    fault = find_fault(evaluator, module, trace)
    named = planted in fault.passes and len(Trace.parse(fault.passes)) == 1 if fault.passes else False
    return {
        "planted": planted,
        "passes": [str(one.spec(include_default=True)) for one in trace],
        "verdict": "named" if named else f"not named: {fault.passes or 'nothing is bad'}",
        "named": named,
        "measured": fault.measured,
        "allowed": 2 * math.log2(len(trace)) + 4,
        "step": fault.step,
        "layer": fault.layer,
        "note": fault.note,
        "tried": fault.tried,
    }


if __name__ == "__main__":
    main()
