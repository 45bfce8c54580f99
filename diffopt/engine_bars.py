"""Measure what engines of demo:shapes come to, end to end, on held-out prompts: `python -m diffopt.engine_bars`.

Each arm is one trace, run as its emitted code in a process of its own, in pairs with the plain pipeline (`docs/measuring.md`).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from diffopt.bench.bakeoff.page import best as fastest_engines
from diffopt.bench.device import environment
from diffopt.bench.evaluate import Evaluator, Measured
from diffopt.bench.studies.solvers import RESULTS, best
from diffopt.passes.compilation.export import Backend, Precision
from diffopt.passes.pipeline import Trace, applied
from diffopt.session import model_directory, model_hash, program, workload_for
from diffopt.sources import lift

MODEL = "demo:shapes"
WHOLE = "export{scope=pipeline precision=bf16}"
CACHED = "cache-features{interval=3}"
ARMS = {
    "components in f32, steps kept": "export{scope=components precision=f32}",
    "components in bf16, steps kept": "export{scope=components precision=bf16}",
    "components by onnxruntime, steps kept": "export{backend=onnxruntime scope=components}",
    "one engine, steps kept": WHOLE,
    "one engine with cached steps, steps kept": f"{CACHED},{WHOLE}",
    "cached steps in eager torch": CACHED,
    "denoiser's engine in f32, steps kept": "export{scope=denoiser precision=f32}",
    "denoiser's two engines in f32 with cached steps": f"{CACHED},export{{scope=denoiser precision=f32}}",
}
STEPS = (6, 5, 3, 2)
"""Arms named `N steps`: with the solver that `python -m diffopt.bench.studies.solvers` found best for so many."""
UNGUIDED = {
    "2 steps, unguided": 'guidance-window{stop=0.0},fit-solver{timesteps="981,221" '
    'weights="0.597975479,-0.916221687;0.477667532,-0.533901334,0.224380065,-0.348784139"}',
}
"""Solvers that `python -m diffopt.bench.fit solver demo:shapes --steps 2 --under guidance-window{stop=0}` has fitted."""
HYBRID = "the fastest engine of each component, steps kept"
BAKEOFF = Path("bench/results/bakeoff-cpu.json")
SCOPES = {"text_encoder": "text_encoder", "unet": "denoiser", "vae_decoder": "vae"}


def arms() -> dict[str, str]:
    """Return the usual arms; those of few steps with DEIS where no solver was searched."""
    found = json.loads(RESULTS.read_text()).get(MODEL, {}) if RESULTS.exists() else {}
    tried = {row["steps"] for row in found.values()}
    few = {f"{n} steps": best(found, n) if n in tried else f"reduce-steps{{steps={n} solver=deis}}" for n in STEPS}
    rows = json.loads(BAKEOFF.read_text())["rows"] if BAKEOFF.exists() else []
    fastest = {HYBRID: hybrid(rows)} if rows else {}
    few |= UNGUIDED
    return {**ARMS, **fastest, **{name: f"{trace},{WHOLE}" for name, trace in few.items()}}


def hybrid(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a trace that gives each component the engine that the bake-off found fastest of those within 1e-2."""
    can = [row for row in rows if row["backend"] in get_args(Backend) and row["precision"] in get_args(Precision)]
    found = fastest_engines([dict(row) for row in can])
    return ",".join(
        f"export{{scope={scope} backend={row['backend']} precision={row['precision']}}}"
        for component, scope in SCOPES.items()
        if (row := found.get((MODEL, component))) is not None
    )


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m diffopt.engine_bars", description=__doc__)
    parser.add_argument("arms", nargs="*", metavar="ARM", help="a trace, or the name of one of the usual arms")
    parser.add_argument("--work", type=Path, default=Path("out/engine-bars"), help="engines and images are kept there")
    parser.add_argument(
        "--build", action="store_true", help="build the engines and make the reference images; times are not worth much"
    )
    parser.add_argument("-o", "--out", type=Path, default=Path("bench/results/engine-bars-cpu.json"))
    options = parser.parse_args()
    usual = arms()
    chosen = {name: usual.get(name, name) for name in options.arms} or usual
    lifted = lift(MODEL)
    model = model_directory(lifted.module)
    baseline = program(lifted.module, "baseline")
    scorer = lifted.builtin.scorer() if lifted.builtin is not None else None
    rows: dict[str, Any] = json.loads(options.out.read_text())["arms"] if options.out.exists() else {}
    options.work.mkdir(parents=True, exist_ok=True)
    with Evaluator(
        baseline, workload_for(lifted, None, 0), work=options.work / "work", engines=options.work / "engines",
        scorer=scorer, weights=model_hash(model),
    ) as evaluator:  # fmt: skip
        for name, trace in chosen.items():
            made = program(applied(Trace.parse(trace), lifted.module), name)
            pairs = (1, 1) if options.build else (10, 30)
            outcome = evaluator.evaluate(made, split="heldout", pairs=pairs, any_image=True)
            row = {"trace": trace, **_row(outcome)}
            print(
                f"{name:44} {json.dumps({k: v for k, v in row.items() if k != 'outcome'})}", file=sys.stderr, flush=True
            )
            if not options.build:
                rows[name] = row
                found = {"environment": environment(), "arms": rows}
                options.out.write_text(json.dumps(found, indent=1, default=str) + "\n")
    return 0


def _row(outcome: Any) -> dict[str, Any]:
    if not isinstance(outcome, Measured):
        return {"failed": str(outcome)[:500]}
    latency, fidelity = outcome.latency, outcome.fidelity
    return {
        "ratio": latency.ratio, "lo": latency.lo, "hi": latency.hi, "pairs": latency.pairs, "state": latency.state,
        "psnr_median": fidelity.psnr_median, "psnr_p10": fidelity.psnr_p10, "psnr_worst": fidelity.psnr_worst,
        "accuracy": fidelity.prompt_accuracy, "baseline_accuracy": fidelity.baseline_prompt_accuracy,
        "images": fidelity.images, "tier": outcome.tier, "outcome": outcome.to_json(),
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
