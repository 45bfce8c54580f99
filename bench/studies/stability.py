"""Whether a tier is stable: `python -m diffopt.bench.studies.stability` judges the same programs run after run.

Each run has fresh processes, and reference images of its own. Writes bench/results/stability-cpu.json; runs are added to those
that are there, until there are enough.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffopt.bench import device
from diffopt.bench.environment import allowed
from diffopt.bench.evaluate import Evaluator, Measured, Program
from diffopt.bench.forkserver import ForkServer
from diffopt.bench.workload import Workload
from diffopt.ir.description import build_module
from diffopt.ir.emit_pipeline import emit_pipeline
from diffopt.ir.source_directory import describe_directory
from diffopt.passes.pipeline import Trace, applied

RESULTS = Path(__file__).resolve().parents[1] / "results" / "stability-cpu.json"
STEPS, PROMPTS = 8, 5
TRACES = ("channels-last", "quantize")


def main(arguments: Sequence[str] | None = None) -> None:
    """Judge the programs once more and write what was said so far."""
    parser = argparse.ArgumentParser(prog="python -m diffopt.bench.studies.stability", description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--now", type=int, default=20, help="of them in this go, at most")
    parser.add_argument("-o", "--out", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    study = json.loads(given.out.read_text()) if given.out.is_file() else {"runs": []}
    with tempfile.TemporaryDirectory(prefix="diffopt-stability-") as home:
        seen = allowed(os.environ, home=Path(home), threads=1)
        with ForkServer(Path(home), environment=seen) as server:
            for _ in range(min(given.now, given.runs - len(study["runs"]))):
                study["runs"].append(one_run(server))
                study |= {
                    "machine": device.environment(),
                    "command": f"python -m diffopt.bench.studies.stability --runs {given.runs}",
                    "tiers": {trace: dict(Counter(run[trace]["tier"] for run in study["runs"])) for trace in TRACES},
                }
                given.out.write_text(json.dumps(study, separators=(",", ":")) + "\n", encoding="utf-8")
    print(len(study["runs"]), json.dumps(study.get("tiers", {})))


def one_run(server: ForkServer) -> dict[str, Any]:
    """Return what a run says of each program: tier, figures, ratio."""
    from diffopt.bench.models.shapes import SHAPES

    module = build_module(describe_directory(SHAPES.directory, steps=STEPS, guidance=SHAPES.guidance))
    search, heldout = (tuple(SHAPES.prompts(split, PROMPTS)) for split in ("search", "heldout"))
    found: dict[str, Any] = {}
    with (
        tempfile.TemporaryDirectory(prefix="diffopt-stability-") as scratch,
        Evaluator(
            Program("baseline", emit_pipeline(module)),
            Workload(search, heldout, 0, 64, 64),
            work=Path(scratch) / "work",
            engines=Path(scratch) / "engines",
            scorer=SHAPES.scorer(),
            server=server,
        ) as evaluator,
    ):
        for trace in TRACES:
            changed = Program(trace, emit_pipeline(applied(Trace.parse(trace), module)))
            outcome = evaluator.evaluate(changed, split="heldout", pairs=(3, 3), any_image=True)
            found[trace] = {"tier": outcome.kind} if not isinstance(outcome, Measured) else {
                "tier": outcome.tier,
                "psnr_median": round(outcome.fidelity.psnr_median, 3),
                "denoiser_error": outcome.fidelity.denoiser_error,
                "ratio": [round(value, 4) for value in (outcome.latency.ratio, outcome.latency.lo, outcome.latency.hi)],
            }  # fmt: skip
    return found


if __name__ == "__main__":
    main()
