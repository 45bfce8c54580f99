"""Fit a pass to a model: `python -m diffopt.bench.fit drift|magcache|timesteps|solver|sensitivity MODEL` prints it."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from diffopt.backends import BackendError
from diffopt.backends.runtime.int8 import SCHEMES
from diffopt.ir.errors import DiffoptError

if TYPE_CHECKING:
    from diffopt.ir.description import PipelineDescription

CALLS = 4
"""Calls of the denoiser, over the steps of a run, on which a layer's sensitivity is measured."""
PROMPTS = ("a red apple on a wooden table", "a city street at night in the rain")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure in one run over the prompts, and print the pass."""
    parser = argparse.ArgumentParser(prog="python -m diffopt.bench.fit", description=__doc__)
    parser.add_argument("what", choices=("drift", "magcache", "timesteps", "solver", "sensitivity"))
    parser.add_argument("model", help="model directory, or a built-in model such as demo:shapes")
    parser.add_argument("--passes", default="", help="passes ahead of the fitted one, e.g. reduce-steps{steps=12}")
    parser.add_argument(
        "--under", default="", help="passes that a fitted solver runs under, e.g. guidance-window{stop=0.5}"
    )
    parser.add_argument("--steps", type=int, default=10, help="timesteps to choose")
    parser.add_argument("--threshold", type=float, help="of the cache that is printed; its own default if left out")
    parser.add_argument("--error", type=float, default=0.01, help="of the denoiser, that narrowed layers may bring")
    parser.add_argument(
        "--scheme", default="int8-weights", choices=SCHEMES, help="of the layers whose sensitivity is measured"
    )
    parser.add_argument("--seed", type=int, default=0)
    given = vars(parser.parse_args(arguments))
    try:
        print(fit(given.pop("what"), given.pop("model"), **given))
    except (DiffoptError, BackendError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def fit(
    what: str,
    model: str,
    *,
    passes: str = "",
    under: str = "",
    steps: int = 10,
    threshold: float | None = None,
    error: float = 0.01,
    scheme: str = "int8-weights",
    seed: int = 0,
) -> str:
    """Return the text of `cache-adaptive` with the drift of this pipeline, of `native-cache` with the ratios of its
    transformer, of `fit-timesteps` with its timesteps, of `fit-solver` with both its timesteps and weights, or of `quantize`
    with the layers that it must leave for the denoiser to stay within `error`.

    Deterministic: one run over two prompts, at the steps and with the scheduler that `passes` lead to; of a solver many
    shorter ones, over eight prompts of a built-in model.
    Raises DiffoptError or BackendError if there is no such model or it cannot be measured.
    """
    from diffopt.backends.fitting import best_timesteps, measure_drift, measure_ratios
    from diffopt.ir.description import build_module
    from diffopt.ir.dialect import denoiser_of
    from diffopt.passes.pipeline import Trace, applied, build_pass
    from diffopt.passes.steps.fit_timesteps import FitTimesteps

    described, prompts = _described(model, 8 if what == "solver" else 2)
    module = applied(Trace.parse(passes), build_module(described))
    if what == "solver":
        return fit_solvers(module, prompts, [steps], seed=seed, under=under)[0]
    pipe = load_emitted(module)

    def run() -> object:
        import torch

        generator = [torch.Generator().manual_seed(seed + index) for index in range(len(prompts))]
        return pipe(list(prompts), generator=generator, output_type="latent")

    if what == "timesteps":
        chosen = best_timesteps(pipe, run, steps)
        return str(Trace((FitTimesteps(timesteps=",".join(map(str, chosen))),)))
    name = denoiser_of(module).sym_name.data
    if what == "sensitivity":
        return _sensitivity(pipe, run, name, error, scheme)
    options = {} if threshold is None else {"threshold": threshold}
    if what == "magcache":
        ratios = ",".join(f"{ratio:.5f}" for ratio in measure_ratios(pipe, run, name))
        return str(Trace((build_pass("native-cache", {"kind": "mag", "ratios": ratios, **options}),)))
    blocks = None if name == "unet" else (1, 0)
    drift = ",".join(f"{change:.4f}" for change in measure_drift(pipe, run, name, blocks=blocks))
    return str(Trace((build_pass("cache-adaptive", {"drift": drift, **options}),)))


def fit_solvers(
    module: Any, prompts: Sequence[str], counts: Sequence[int], *, seed: int = 0, under: str = ""
) -> list[str]:
    """Return a trace of `fit-solver` for each of these numbers of steps, fitted to a module's own runs of the prompts.

    under: passes of guidance or caching ahead of it; the runs that are fitted to are made without them, so that the weights
    mend what they miss.
    Raises DiffoptError or BackendError if the module's steps cannot be fitted.
    """
    import torch

    from diffopt.backends.solver_fitting import fit_solver, trace_trajectory
    from diffopt.ir.dialect import scheduler_of
    from diffopt.passes.pipeline import Trace, applied
    from diffopt.passes.steps.fit_solver import FitSolver
    from diffopt.passes.steps.fit_timesteps import FitTimesteps
    from diffopt.passes.steps.solvers import is_flow

    def request(pipe: Any) -> object:
        generator = [torch.Generator().manual_seed(seed + index) for index in range(len(prompts))]
        return pipe(list(prompts), generator=generator, output_type="latent")

    solver: Literal["dpmsolver++", "euler"] = "euler" if is_flow(scheduler_of(module)) else "dpmsolver++"
    ahead = Trace.parse(under)
    pipe = load_emitted(module)
    traced = trace_trajectory(pipe, lambda: request(pipe))
    made = []
    for count in counts:
        # The weights take the solver's place, and each trial brings timesteps of its own.
        others = FitTimesteps(",".join(str(900 - index) for index in range(count)), solver=solver)
        student = load_emitted(applied(Trace((*ahead, others)), module))
        found = fit_solver(student, functools.partial(request, student), traced, count)
        weights = ";".join(",".join(map(repr, row)) for row in found.weights)
        made.append(str(Trace((*ahead, FitSolver(timesteps=",".join(map(str, found.timesteps)), weights=weights)))))
    return made


def _sensitivity(pipe: Any, run: Callable[[], object], name: str, error: float, scheme: str) -> str:
    from diffopt.backends.sensitivity import choose, record_calls
    from diffopt.passes.pipeline import Trace, build_pass

    calls = record_calls(pipe, run, name, CALLS)
    chosen = choose(getattr(pipe, name), calls, error, scheme)
    return str(Trace((build_pass("quantize", {"scheme": scheme, "exclude": ",".join(chosen.excluded)}),)))


def load_emitted(module: Any) -> Any:
    """Run the code that a module emits and return its pipeline, with the progress bar off."""
    from diffopt.ir.emit_pipeline import emit_pipeline

    names: dict[str, Any] = {"__name__": "emitted", "__file__": str(Path.cwd() / "pipeline.py")}
    exec(compile(emit_pipeline(module), "pipeline.py", "exec"), names)  # noqa: S102 - code of our own making
    pipe = names["load"]()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def prompts_for(model: str, count: int) -> tuple[str, ...]:
    """Return prompts to fit on: those of a built-in model, which nothing is judged by, or two of no special kind."""
    from diffopt.bench.models import builtin

    known = builtin(model)
    return PROMPTS if known is None else tuple(known.prompts("calibration", count))


def _described(model: str, count: int) -> tuple[PipelineDescription, tuple[str, ...]]:
    from diffopt.bench.models import builtin, describe
    from diffopt.ir.source_directory import describe_directory

    known = builtin(model)
    return describe_directory(model) if known is None else describe(known), prompts_for(model, count)


if __name__ == "__main__":
    main()
