"""Measure each pass alone on the built-in model: `python -m diffopt.bench.passes` writes bench/results/passes-cpu.json.

Every pass stands with its default options (or the first instance that fits); those that only a user asks for, that
need another kind of model, or whose package is missing have a sentence instead of a figure.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from diffopt.bench import device
from diffopt.bench.evaluate import Evaluator, Failed, Outcome, Program
from diffopt.bench.models import builtin
from diffopt.bench.workload import Workload
from diffopt.ir.description import JSON, build_module
from diffopt.ir.emit_pipeline import emit_pipeline
from diffopt.ir.identity import context
from diffopt.ir.source_directory import describe_directory
from diffopt.passes.base import DiffusionPass, Refusal, registry
from diffopt.passes.pipeline import Trace, run

ROOM = Path(__file__).resolve().parent
RESULTS = ROOM / "results" / "passes-cpu.json"
MODEL = ROOM / "models" / "shapes" / "weights"
STEPS, GUIDANCE, PROMPTS, PAIRS, SEED = 25, 2.0, 6, 5, 0


def effect(outcome: Outcome) -> str:
    """Say in one cell of a table what a pass did: latency ratio with its interval, fidelity, tier, what was idle."""
    if isinstance(outcome, Failed):
        return f"failed ({outcome.kind}): {outcome.message.splitlines()[0][:120]}"
    latency, fidelity = outcome.latency, outcome.fidelity
    cell = f"{latency.ratio:.2f} × ({latency.lo:.2f} to {latency.hi:.2f}), "
    cell += f"{fidelity.psnr_median:.1f} dB, worst {fidelity.psnr_worst:.1f} dB, {outcome.tier}"
    return f"{cell}; no effect seen in its first request: {', '.join(outcome.inactive)}" if outcome.inactive else cell


def main(argv: list[str] | None = None) -> int:
    """Measure the passes asked for, and keep the figures of the others."""
    parser = argparse.ArgumentParser(prog="python -m diffopt.bench.passes", description="Measure each pass alone.")
    parser.add_argument("--only", default="", help="passes to measure, by commas")
    only = set(filter(None, parser.parse_args(argv).only.split(",")))
    module = build_module(describe_directory(MODEL, steps=STEPS, guidance=GUIDANCE, name="shapes"))
    shapes = builtin("demo:shapes")
    if shapes is None:
        raise ValueError("the built-in model is not there")
    search, heldout = (tuple(shapes.prompts(split, PROMPTS, SEED)) for split in ("search", "heldout"))
    few = Workload(search, heldout, SEED, 64, 64)
    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    effects: dict[str, JSON] = dict(known.get("passes", {}))
    with (
        tempfile.TemporaryDirectory(prefix="diffopt-passes-") as scratch,
        Evaluator(
            Program("baseline", emit_pipeline(module)),
            few,
            work=Path(scratch) / "work",
            engines=Path(scratch) / "engines",
        ) as evaluator,
    ):
        for name, found in registry().items():
            if only and name not in only:
                continue
            if found.on_request:
                effects[name] = "only on request"
                continue
            applied = run(Trace((_fitting(found, module),)), module)
            if isinstance(applied, Refusal):
                effects[name] = f"not for this model: {applied.reason}"
                continue
            outcome = evaluator.evaluate(Program(name, emit_pipeline(applied)), pairs=(PAIRS, PAIRS), any_image=True)
            effects[name] = effect(outcome)
            print(f"{name}: {effects[name]}", file=sys.stderr, flush=True)
            _write(effects)
    _write(effects)
    return 0


def _write(effects: dict[str, JSON]) -> None:
    here = device.environment()
    text = f"{here.get('cpu')}, {here.get('cores')} cores, {STEPS} steps, {PROMPTS} prompts, {PAIRS} pairs a pass"
    RESULTS.write_text(json.dumps({"environment": text, "passes": effects}, indent=2) + "\n", encoding="utf-8")


def _fitting(found: type[DiffusionPass], module: object) -> DiffusionPass:
    """Return the pass by default, or the first instance of its space that is not refused."""
    from xdsl.dialects.builtin import ModuleOp

    assert isinstance(module, ModuleOp)
    if found().refusal(module) is None:
        return found()
    return next(iter(found.schedule_space(context(), module)), found())


if __name__ == "__main__":
    raise SystemExit(main())
