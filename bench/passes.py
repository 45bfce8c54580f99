"""Measure each pass alone on the built-in models: `python -m diffopt.bench.passes` writes bench/results/passes-cpu.json.

Every pass stands with its default options (or the first instance that fits) on the first built-in model that takes it; one
that does nothing by itself stands with the pass it is for, as `WITH` or its first example says. What only a user can name
is an untrained stand-in, of which the time alone is told. Passes that need a GPU, or a model that is not here, have a
sentence instead of a figure.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xdsl.dialects.builtin import ModuleOp

from diffopt.bench import device, models
from diffopt.bench.evaluate import Evaluator, Failed, Outcome, Program
from diffopt.bench.fit import fit
from diffopt.bench.stand_ins import ADAPTER, AUTOENCODER, write_stand_ins
from diffopt.bench.workload import Workload
from diffopt.ir.description import JSON, Adapter, build_module
from diffopt.ir.emit_pipeline import emit_pipeline
from diffopt.ir.errors import DiffoptError
from diffopt.ir.identity import context
from diffopt.passes.base import DiffusionPass, Refusal, registry
from diffopt.passes.pipeline import Trace, run

ROOM = Path(__file__).resolve().parent
RESULTS = ROOM / "results" / "passes-cpu.json"
STEPS, PROMPTS, PAIRS, SEED = 25, 6, 9, 0
FITTED_STEPS = 5
SHIPPED: Callable[[], tuple[str, ...]] = getattr(models, "shipped", lambda: ("demo:shapes",))

WITH = {"calibrate": "calibrate,export{scope=denoiser}"}
"""Passes that say what another does, with it."""

NEEDS_GPU = ("CUDA", "accelerator", "GPU", "torchrun")
"""What the code of a pass says where there is no device for it."""


def effect(outcome: Outcome, *, time_only: bool = False) -> str:
    """Say in one cell of a table what a pass did: latency ratio with its interval, fidelity, tier, what was idle."""
    if isinstance(outcome, Failed):
        return f"failed ({outcome.kind}): {outcome.message.splitlines()[0][:120]}"
    latency, fidelity = outcome.latency, outcome.fidelity
    cell = f"{latency.ratio:.2f} × ({latency.lo:.2f} to {latency.hi:.2f}), "
    if time_only:
        return cell.removesuffix(", ")
    cell += f"{fidelity.psnr_median:.1f} dB, worst {fidelity.psnr_worst:.1f} dB, "
    cell += f"denoiser {fidelity.denoiser_error:.0e}, " if fidelity.denoiser_error is not None else ""
    cell += outcome.tier
    return f"{cell}; no effect seen in its first request: {', '.join(outcome.inactive)}" if outcome.inactive else cell


def main(argv: list[str] | None = None) -> int:
    """Measure the passes asked for, and keep the figures of the others."""
    parser = argparse.ArgumentParser(prog="python -m diffopt.bench.passes", description="Measure each pass alone.")
    parser.add_argument("--only", default="", help="passes to measure, by commas")
    parser.add_argument("--missing", action="store_true", help="those that have no figure yet")
    given = parser.parse_args(argv)
    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    effects: dict[str, JSON] = {name: text for name, text in known.get("passes", {}).items() if name in registry()}
    only = set(filter(None, given.only.split(","))) or {*registry()}
    wanted = [n for n in registry() if n in only and not (given.missing and " × " in str(effects.get(n)))]
    with tempfile.TemporaryDirectory(prefix="diffopt-passes-") as scratch, _Bench(Path(scratch)) as bench:
        for name in wanted:
            effects[name] = bench.effect(registry()[name])
            print(f"{name}: {effects[name]}", file=sys.stderr, flush=True)
            _write(effects)
    return 0


class _Bench(contextlib.ExitStack):
    """The built-in models with their baselines running, each from when it is first asked for."""

    def __init__(self, scratch: Path) -> None:
        super().__init__()
        self._scratch = scratch
        self._evaluators: dict[str, Evaluator] = {}
        first: Any = models.builtin("demo:shapes")
        write_stand_ins(scratch, first.directory)

    def effect(self, found: type[DiffusionPass]) -> str:
        """Return what a pass does, in one cell of a table."""
        if found.devices == ("cuda",):
            return "needs a GPU, not run"
        refusals = []
        for model in SHIPPED():
            module = self._module(model, adapted=found.name == "fuse-lora")
            trace = self._trace(found, module)
            applied = run(trace, module)
            if isinstance(applied, Refusal):
                refusals.append(f"{model}: {applied.reason}")
                continue
            label = f"{model}{', a random LoRA loaded' if found.name == 'fuse-lora' else ''}"
            try:
                program = Program(found.name, emit_pipeline(applied))
            except DiffoptError as error:  # code that a language model wrote, and that is not here
                return str(error)
            outcome = self._evaluator(label, model, module).evaluate(program, pairs=(PAIRS, PAIRS), any_image=True)
            if isinstance(outcome, Failed) and any(word in outcome.message for word in NEEDS_GPU):
                return "needs a GPU, not run"
            stand_in = found.name in ("tiny-vae", "distill-lora")
            cell = effect(outcome, time_only=stand_in) + ("; an untrained stand-in, so its time alone" * stand_in)
            cell += f"; as `{','.join(step.name for step in trace)}`" * (len(trace) > 1)
            return cell if label == "demo:shapes" else f"{cell}; on {label}"
        return f"not for the built-in models: {refusals[-1].partition(': ')[2]}"

    def _module(self, model: str, *, adapted: bool) -> ModuleOp:
        builtin: Any = models.builtin(model)
        described = dataclasses.replace(models.describe(builtin, steps=STEPS), name="builtin")
        if adapted:
            lora = Adapter("lora", str(self._scratch / ADAPTER))
            described = dataclasses.replace(described, adapters=(lora,))
        return build_module(described)

    def _trace(self, found: type[DiffusionPass], module: ModuleOp) -> Trace:
        """Return the pass as one asks for it, with those ahead of it in its first example where it is refused alone."""
        if found.name in WITH:
            return Trace.parse(WITH[found.name])
        if found.name == "fit-solver":  # its defaults are of no model
            return Trace.parse(fit("solver", "demo:shapes", steps=FITTED_STEPS))
        first = next(example.trace for example in found.examples if example.expect)
        if found.on_request:
            for folder in (ADAPTER, AUTOENCODER):
                first = first.replace(folder.as_posix(), str(self._scratch / folder))
            return Trace.parse(first)
        alone = Trace((found(),))
        if not isinstance(run(alone, module), Refusal):
            return alone
        fitting = next(iter(found.schedule_space(context(), module)), None)
        return Trace((fitting,)) if fitting is not None else Trace.parse(first)

    def _evaluator(self, label: str, model: str, module: ModuleOp) -> Evaluator:
        if label not in self._evaluators:
            builtin: Any = models.builtin(model)
            search, heldout = (tuple(builtin.prompts(split, PROMPTS, SEED)) for split in ("search", "heldout"))
            size = [int(str(dict(_call(module))[key])) for key in ("height", "width")]
            self._evaluators[label] = self.enter_context(
                Evaluator(
                    Program("baseline", emit_pipeline(module)),
                    Workload(search, heldout, SEED, *size),
                    work=self._scratch / f"work{len(self._evaluators)}",
                    engines=self._scratch / "engines",
                )
            )
        return self._evaluators[label]


def _call(module: ModuleOp) -> dict[str, JSON]:
    from diffopt.ir.emit_statements import call_arguments

    return call_arguments(module)


def _write(effects: dict[str, JSON]) -> None:
    here = device.environment()
    text = f"{here.get('cpu')}, {here.get('cores')} core(s), {STEPS} steps, {PROMPTS} prompts, {PAIRS} pairs a pass"
    ordered = {name: effects[name] for name in registry() if name in effects}
    RESULTS.write_text(json.dumps({"environment": text, "passes": ordered}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
