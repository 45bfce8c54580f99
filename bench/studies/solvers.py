"""Find the solver for each number of steps, in torch: `python -m diffopt.bench.studies.solvers`.

Every solver and spacing of `reduce-steps`, and `fit-solver`'s weights and timesteps, are run on a built-in model's search
prompts and compared with its baseline. Nothing is timed and nothing is built: `python -m diffopt.engine_bars` does that with
what is found here, on prompts that this never saw. What is known already is not tried again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path("bench/results/solvers-cpu.json")
SEED = 500


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m diffopt.bench.studies.solvers", description=__doc__)
    parser.add_argument("--model", default="demo:shapes", help="a built-in model (default: %(default)s)")
    parser.add_argument("--steps", type=int, nargs="*", default=[2, 3, 4, 5, 6, 7], metavar="N")
    parser.add_argument("--prompts", type=int, default=32, metavar="N", help="of the search's (default: %(default)s)")
    parser.add_argument("--no-fit", action="store_true", help="of reduce-steps alone")
    parser.add_argument("-o", "--out", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    known: dict[str, Any] = json.loads(given.out.read_text()) if given.out.exists() else {}
    rows: dict[str, Any] = known.get(given.model, {})
    look = looking(given.model, given.prompts)
    for steps in given.steps:
        for trace in traces(given.model, steps, rows, fit=not given.no_fit):
            if trace not in rows:
                rows[trace] = {"steps": steps, **look(trace)}
                print(f"{steps} {json.dumps(rows[trace])} {trace[:100]}", flush=True)
                given.out.write_text(json.dumps({**known, given.model: rows}, indent=1) + "\n")
    for steps in given.steps:
        print(f"{steps} steps: {best(rows, steps)}")


def best(rows: dict[str, Any], steps: int) -> str:
    """Return the trace whose pictures were nearest to the baseline's, of those with this many steps."""
    return max((t for t in rows if rows[t]["steps"] == steps), key=lambda trace: float(rows[trace]["psnr_median"]))


def traces(model: str, steps: int, known: dict[str, Any], *, fit: bool) -> list[str]:
    """Return what is tried for a number of steps; a solver that was fitted before is not fitted again."""
    from diffopt.bench.fit import fit as fitted
    from diffopt.bench.models import BUILTINS, describe
    from diffopt.ir.description import build_module
    from diffopt.passes.pipeline import Trace
    from diffopt.passes.steps.reduce_steps import ReduceSteps

    module = build_module(describe(BUILTINS[model]))
    plain = [made for made in ReduceSteps.space(module) if made.steps == steps]
    # The space leaves some numbers of steps out; a solver of one of them is worth as much of the next.
    plain = plain or [
        ReduceSteps(steps, made.solver, made.spacing) for made in ReduceSteps.space(module) if made.steps == steps - 1
    ]
    found = [str(Trace((made,))) for made in plain if made.refuse(module) is None]
    before = [trace for trace in known if trace.startswith("fit-solver") and known[trace]["steps"] == steps]
    return [*found, *(before or ([fitted("solver", model, steps=steps)] if fit else []))]


def looking(model: str, count: int) -> Callable[[str], dict[str, float]]:
    """Return what runs a trace on the search's prompts and says how near its pictures are to the baseline's."""
    import numpy
    import torch

    from diffopt.bench.fit import load_emitted
    from diffopt.bench.models import BUILTINS, describe
    from diffopt.ir.description import build_module
    from diffopt.passes.pipeline import Trace, applied

    built = BUILTINS[model]
    module, prompts, scorer = build_module(describe(built)), built.prompts("search", count), built.scorer()

    def pictures(trace: str) -> Any:
        pipe = load_emitted(applied(Trace.parse(trace), module))
        seeds = [torch.Generator().manual_seed(SEED + index) for index in range(count)]
        with torch.no_grad():
            return pipe(list(prompts), generator=seeds, output_type="np").images.astype("float32")

    baseline = pictures("")

    def look(trace: str) -> dict[str, float]:
        made = pictures(trace)
        psnr = -10 * numpy.log10(((made - baseline) ** 2).mean((1, 2, 3)).clip(1e-12))
        return {
            "psnr_median": round(float(numpy.median(psnr)), 2),
            "psnr_p10": round(float(numpy.quantile(psnr, 0.1)), 2),
            "psnr_worst": round(float(psnr.min()), 2),
            "accuracy": float(scorer.correct(made, prompts).mean()),
            "baseline_accuracy": float(scorer.correct(baseline, prompts).mean()),
        }

    return look


if __name__ == "__main__":
    main()
