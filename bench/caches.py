"""Whether caches beat fewer steps at equal time on demo:shapes: `python -m diffopt.bench.caches`."""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

RESULTS = Path(__file__).resolve().parent / "results" / "caches-cpu.json"

FEWER = tuple(f"reduce-steps{{steps={n}}}" for n in (4, 5, 6, 8, 10, 12, 15, 20, 25)) + tuple(
    f"reduce-steps{{steps={n} solver=own}}" for n in (10, 20)
)
"""What caches have to beat: the same solver at fewer steps, nothing else changed."""

CACHES = (
    "cache-features{interval=2}",
    "cache-features{interval=3}",
    "cache-features{interval=3 schedule=early}",
    "cache-features{interval=3},forecast-features",
    "cache-features{interval=5},forecast-features",
    "cache-features{interval=5},forecast-features{order=2}",
    "cache-features{interval=8},forecast-features",
    "reduce-steps{steps=20 solver=own},cache-features{interval=3}",
    "reduce-steps{steps=20 solver=own},cache-features{interval=3},forecast-features",
    "reduce-steps{steps=20},cache-features{interval=2}",
    "reduce-steps{steps=20},cache-features{interval=2},forecast-features",
    "reduce-steps{steps=12},cache-features{interval=2}",
    "reduce-steps{steps=12},cache-features{interval=2},forecast-features",
    "reduce-steps{steps=12},cache-features{interval=2 branch=1}",
    "reduce-steps{steps=12},gate-cross-attention{gate=0.4}",
    "reduce-steps{steps=12},reuse-unconditional",
    "reduce-steps{steps=12},reuse-unconditional{reuse=prediction}",
    "reduce-steps{steps=12},split-guidance-batch",
    "reduce-steps{steps=12},guidance-window{stop=0.6}",
    "reduce-steps{steps=8},cache-features{interval=2}",
    "reduce-steps{steps=8},reuse-unconditional",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every arm and write the table."""
    parser = argparse.ArgumentParser(prog="python -m diffopt.bench.caches", description=__doc__)
    parser.add_argument("--prompts", type=int, default=100, help="held-out prompts, one image each")
    parser.add_argument("--rounds", type=int, default=5, help="timed requests of one image")
    parser.add_argument("-o", "--out", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    table = measure(FEWER, (*CACHES, *_fitted()), prompts=given.prompts, rounds=given.rounds)
    given.out.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    for row in table["arms"]:
        line = f"{row['ms']:8.1f} ms {row['accuracy']:6.1%} {row['psnr']:6.2f} dB"
        print(f"{line} {row.get('against_fewer_steps', ''):28} {row['passes'] or 'baseline'}")


def measure(fewer: Sequence[str], caches: Sequence[str], *, prompts: int, rounds: int) -> dict[str, Any]:
    """Return time, prompt accuracy and distance to the baseline's images of every arm, in torch on one thread.

    Times of one image are medians over rounds in which the arms take turns; images are made in batches of ten.
    """
    import diffusers
    import torch

    from diffopt.backends.runtime import witnesses
    from diffopt.bench.fidelity import psnr
    from diffopt.bench.fit import load_emitted
    from diffopt.bench.models.shapes import SHAPES
    from diffopt.ir.description import build_module
    from diffopt.ir.source_directory import describe_directory
    from diffopt.passes.pipeline import Trace, applied

    torch.set_num_threads(1)
    lifted = build_module(describe_directory(SHAPES.directory, steps=SHAPES.steps, guidance=SHAPES.guidance))
    asked, scorer = SHAPES.prompts("heldout", prompts), SHAPES.scorer()
    traces = ["", *fewer, *caches]
    pipes = {trace: load_emitted(applied(Trace.parse(trace), lifted)) for trace in traces}

    def images(pipe: Any, chosen: Sequence[str], first: int) -> Any:
        generators = [torch.Generator().manual_seed(first + index) for index in range(len(chosen))]
        return pipe(list(chosen), generator=generators, output_type="np").images

    times: dict[str, list[float]] = {trace: [] for trace in traces}
    for turn in range(rounds + 1):
        for trace in traces:
            started = time.perf_counter()
            images(pipes[trace], asked[:1], turn)
            times[trace] += [time.perf_counter() - started] if turn else []
    arms: list[dict[str, Any]] = []
    reference: Any = None
    for trace in traces:
        made = np.concatenate([images(pipes[trace], asked[i : i + 10], i) for i in range(0, len(asked), 10)])
        reference = made if reference is None else reference
        distance = np.asarray(psnr(made, reference))
        arms.append(
            {
                "passes": trace,
                "ms": round(1000 * median(times[trace]), 2),
                "accuracy": round(float(np.mean(scorer.correct(made, asked))), 4),
                "psnr": round(float(np.mean(np.minimum(distance, 99.0))), 3),
                "psnr_worst": round(float(np.min(distance)), 3),
                "witnesses": [witness.detail for witness in witnesses(pipes[trace])],
            }
        )
    front = [arm for arm in arms if arm["passes"] in fewer]
    for arm in arms:
        if arm["passes"] in caches:
            arm["against_fewer_steps"] = _verdict(arm, front)
    return {
        "command": f"python -m diffopt.bench.caches --prompts {prompts} --rounds {rounds}",
        "machine": f"{platform.processor() or platform.machine()}, one thread",
        "versions": {"torch": torch.__version__, "diffusers": diffusers.__version__},
        "prompts": prompts,
        "arms": arms,
    }


def _verdict(arm: dict[str, Any], front: Sequence[dict[str, Any]]) -> str:
    """Compare an arm with the best of the arms of fewer steps that take no more time."""
    equal = [other for other in front if other["ms"] <= arm["ms"]]
    if not equal:
        return "faster than all of them"
    accuracy, distance = max(other["accuracy"] for other in equal), max(other["psnr"] for other in equal)
    return f"{arm['accuracy'] - accuracy:+.1%} {arm['psnr'] - distance:+.2f} dB"


def _fitted() -> list[str]:
    """Return the arms whose options are measured first."""
    from diffopt.bench.fit import fit

    found = [fit("timesteps", "demo:shapes", steps=steps) for steps in (4, 5, 8)]
    found += [f"{found[-1]},cache-features{{interval=2}},forecast-features"]
    for ahead, threshold in (("", 0.15), ("reduce-steps{steps=12}", 0.4)):
        made = fit("drift", "demo:shapes", passes=ahead, threshold=threshold)
        found.append(f"{ahead},{made}" if ahead else made)
    found.append(f"{found[-2]},forecast-features")
    return found


if __name__ == "__main__":
    main()
