"""Record a landscape of the built-in model: `python -m diffopt.search.study.record` (about two hours on a quiet machine).

Each program is measured as a search measures it, and is a line of a file at once: a recording that was stopped goes on
where it was. When all are there, bench/results/landscape-shapes.json is written.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffopt.bench.device import environment
from diffopt.bench.evaluate import Evaluator, Failed, Program
from diffopt.bench.models.shapes import SHAPES
from diffopt.bench.workload import Workload
from diffopt.ir.description import build_module
from diffopt.ir.emit_pipeline import emit_pipeline
from diffopt.ir.identity import module_hash, parse_module, print_module
from diffopt.ir.source_directory import describe_directory
from diffopt.passes.pipeline import Trace, applied
from diffopt.search.study.landscape import VERSION, programs
from diffopt.search.study.rows import row_of

RESULTS = Path(__file__).resolve().parents[2] / "bench" / "results" / "landscape-shapes.json"
PROMPTS, PAIRS, SEED = 8, (5, 8), 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing and write the table."""
    parser = argparse.ArgumentParser(prog="python -m diffopt.search.study.record", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("out/landscape"), help="rows, engines and reference images")
    parser.add_argument("--most", type=int, default=0, help="stop after so many more programs (0: all)")
    parser.add_argument("--list", action="store_true", help="say how many programs there are and how many are missing")
    parser.add_argument("-o", "--out", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    module = build_module(
        describe_directory(SHAPES.directory, steps=SHAPES.steps, guidance=SHAPES.guidance, name="shapes")
    )
    asked = programs(module)
    lines = given.work / "rows.jsonl"
    rows = {row["key"]: row for row in _read(lines)}
    # Spread over the grid, so that what was recorded when a recording stops is no corner of it.
    missing = sorted(((trace, key) for trace, key in asked if key not in rows), key=lambda pair: pair[1])
    print(f"{len(asked)} programs, {len(missing)} not recorded yet", file=sys.stderr)
    if given.list:
        return 0
    if missing:
        given.work.mkdir(parents=True, exist_ok=True)
        search, heldout = (tuple(SHAPES.prompts(split, PROMPTS, SEED)) for split in ("search", "heldout"))
        work = Workload(search, heldout, SEED, 64, 64)
        baseline = Program("baseline", emit_pipeline(module))
        with Evaluator(
            baseline, work, work=given.work / "work", engines=given.work / "engines", scorer=SHAPES.scorer()
        ) as evaluator:
            for number, (trace, key) in enumerate(missing[: given.most or None], 1):
                started = time.monotonic()
                changed = applied(Trace.parse(trace), module)
                if module_hash(changed) != key:
                    raise RuntimeError(f"{trace} leads elsewhere than when it was listed")
                outcome = evaluator.evaluate(Program(trace, emit_pipeline(changed)), pairs=PAIRS)
                rows[key] = {
                    "key": key,
                    "trace": trace,
                    "seconds": round(time.monotonic() - started, 1),
                    **row_of(outcome),
                }
                with lines.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(rows[key]) + "\n")
                said = outcome.message if isinstance(outcome, Failed) else f"{outcome.latency.ratio:.2f} x"
                print(f"{number}/{len(missing)} {rows[key]['seconds']} s {said} {trace}", file=sys.stderr, flush=True)
    # In the table the model goes by its name: where it lies on this machine is nobody's business, and is part of keys.
    named = parse_module(print_module(module).replace(str(SHAPES.directory), SHAPES.name), "the recorded module")
    table = {
        "version": VERSION,
        "command": f"python -m diffopt.search.study.record: {PROMPTS} prompts, {PAIRS[0]} to {PAIRS[1]} pairs",
        "environment": environment(),
        "complete": len(rows) >= len(asked),
        "module": print_module(named),
        "rows": [
            {**rows[key], "key": module_hash(applied(Trace.parse(trace), named))} for trace, key in asked if key in rows
        ],
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(table) + "\n", encoding="utf-8")
    return 0


def _read(path: Path) -> list[dict[str, Any]]:
    """Read the rows; a line that was cut off, where a recording was killed, is ended and left out."""
    found = []
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if text and not text.endswith("\n"):
        path.write_text(text + "\n", encoding="utf-8")
    for line in text.splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


if __name__ == "__main__":
    raise SystemExit(main())
