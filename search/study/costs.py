"""How well the cost model predicts a recorded landscape: `python -m diffopt.search.study.costs LANDSCAPE`.

Seconds are those of a machine on which the baseline always takes its median: each program was raced against it, and the
machine's own speed moved meanwhile. For each making, the programs with the least and the most work, and of the first making one with shallow and one with
unguided calls, are what is "measured once"; all others are predicted. Writes costs-shapes.json.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median

from diffopt.ir.identity import parse_module
from diffopt.passes.pipeline import Trace, applied
from diffopt.search.cost_model import SHALLOW, SINGLE, Measurement, calls_of, error_of, fit, making_of

RESULTS = Path(__file__).resolve().parents[2] / "bench" / "results"


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit on a few programs, predict the others, write the errors."""
    parser = argparse.ArgumentParser(prog="python -m diffopt.search.study.costs", description=__doc__)
    parser.add_argument("landscape", type=Path)
    parser.add_argument("-o", "--out", type=Path, default=RESULTS / "costs-shapes.json")
    given = parser.parse_args(arguments)
    table = json.loads(given.landscape.read_text(encoding="utf-8"))
    module = parse_module(table["module"], str(given.landscape))
    rows = [row for row in table["rows"] if "failed" not in row]
    baseline = median(row["baseline_s"] for row in rows)
    measured = []
    for row in rows:
        changed = applied(Trace.parse(row["trace"]), module)
        measured.append(Measurement(making_of(changed), calls_of(changed), baseline / row["ratio"][0]))
    chosen = calibration(measured)
    model = fit([measured[i] for i in chosen])
    error = error_of(model, [m for i, m in enumerate(measured) if i not in chosen])
    found = {
        "landscape": given.landscape.name,
        "measured once": len(chosen),
        "error": asdict(error),
        "model": model.to_json(),
    }
    given.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"{error.predicted} programs predicted from {len(chosen)}: median error {error.median:.1%},"
          f" worst {error.worst:.1%}, rank correlation {error.correlation:.3f}")  # fmt: skip
    return 0


def calibration(measured: Sequence[Measurement]) -> set[int]:
    """Return which programs are measured once: decided by what they call alone."""
    groups: dict[str, list[int]] = defaultdict(list)
    for index, one in enumerate(measured):
        groups[one.making].append(index)
    chosen: set[int] = set()
    for members in groups.values():
        plain = [i for i in members if not _special(measured[i])] or members
        by_work = sorted(plain, key=lambda i: measured[i].calls.work(SHALLOW, SINGLE))
        chosen |= {by_work[0], by_work[-1]}
    for kind in ("guided_shallow", "alone"):
        there = [i for i, one in enumerate(measured) if getattr(one.calls, kind)]
        if there:
            chosen.add(max(there, key=lambda i: getattr(measured[i].calls, kind)))
    return chosen


def _special(one: Measurement) -> bool:
    calls = one.calls
    return bool(calls.guided_shallow or calls.alone or calls.alone_shallow)


if __name__ == "__main__":
    raise SystemExit(main())
