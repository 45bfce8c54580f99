"""Build, check and measure everything on a GPU in one go: `python -m diffopt.bench.gpu.run --out DIR --minutes M`.

Stage `prepare` measures ceilings, builds every arm of every model in a process a model, and keeps compiler caches;
stage `measure` builds again, from those caches where they are there, and times the arms, one model at a time.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
import traceback
from pathlib import Path

from diffopt.bench.gpu.arms import ARMS, SHARES
from diffopt.bench.gpu.store import Results
from diffopt.bench.gpu.turns import end, take_turns

BUILD_SHARE = 0.5
"""Most of the time that building may take where measuring follows."""

GROUPS = {
    "flux": ("flux", "ours-regional,ours-near"),
    "sdxl": ("sdxl", "ours-regional,ours-near,ours-whole"),
    "sdxl-tuned": ("sdxl", "stock-max-autotune"),
    "pixart": ("pixart", "ours-regional,ours-near,ours-whole,stock-max-autotune"),
}
"""What is prepared in processes of its own: label to model and arms."""

BUILT_SHARE = 0.7
"""Part of the time after which who still builds or checks is ended: 62 s of checks is the most that was seen."""

CEILINGS_S = 8.0
"""For the card's ceilings, once nothing else is on it."""

SPARE_S = 12.0
"""Kept at the end for what is under way to be written."""


def main() -> int:
    """Run the stages that are asked for."""
    given = _arguments()
    begun = time.time()
    until = begun + 60 * given.minutes - SPARE_S
    given.out.mkdir(parents=True, exist_ok=True)
    given.work.mkdir(parents=True, exist_ok=True)
    measuring = given.stage != "prepare"
    build_until = begun + (until - begun) * BUILD_SHARE if measuring else until
    summary = Results(given.out / "run.json")
    summary.data |= {"stage": given.stage, "device": given.device, "small": given.small, "minutes": given.minutes}
    models = given.models.split(",")
    jobs = {model: (model, given.arms) for model in models}
    if not measuring and not given.arms:
        split = {label: group for label, group in GROUPS.items() if group[0] in models}
        jobs = split | {
            model: job for model, job in jobs.items() if model not in {group[0] for group in split.values()}
        }
    workers = {label: _worker(given, label, *job, build_until, measuring) for label, job in jobs.items()}
    if given.kernels_s and not measuring:
        workers["kernels"] = _kernels(given)
    if measuring:
        late = take_turns(
            given.work, workers, SHARES,
            built_until=begun + (until - begun) * BUILT_SHARE, until=until - CEILINGS_S, spare_s=CEILINGS_S / 2,
        )  # fmt: skip
        summary.data["late"] = late
    for process in workers.values():
        end(process, max(until - time.time(), 0))
    if given.device != "cpu" and "ceilings" not in summary.data:
        _ceilings(summary)
    summary.data["seconds"] = round(time.time() - begun, 1)
    summary.keep()
    _print(given.out, summary, list(jobs))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("/tmp/diffopt-gpu"))
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--stage", choices=["prepare", "measure", "all"], default="all")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=0, help="instead of the models' usual ones")
    parser.add_argument("--small", action="store_true", help="small versions of the models, for dry runs")
    parser.add_argument("--no-compile", action="store_true", help="nothing is compiled, for dry runs")
    parser.add_argument("--models", default=",".join(ARMS))
    parser.add_argument("--arms", default="")
    parser.add_argument("--kernels-s", type=float, default=0, help="seconds for single kernels, beside the builds")
    parser.add_argument("--caches-in", type=Path)
    parser.add_argument("--caches-out", type=Path)
    return parser.parse_args()


def _kernels(given: argparse.Namespace) -> subprocess.Popen[bytes]:
    """Measure single kernels, beside what is built."""
    command = [
        sys.executable, "-m", "diffopt.bench.gpu.kernels", "--out", str(given.out / "kernels.json"),
        "--device", given.device, "--budget", str(given.kernels_s),
    ]  # fmt: skip
    log = (given.out / "kernels.log").open("ab")
    return subprocess.Popen(command + ["--small"] * given.small, stdout=log, stderr=subprocess.STDOUT)


def _worker(
    given: argparse.Namespace, label: str, model: str, arms: str, build_until: float, measuring: bool
) -> subprocess.Popen[bytes]:
    for name in (f"{label}.built", f"{label}.turn"):
        (given.work / name).unlink(missing_ok=True)
    command = [
        sys.executable, "-m", "diffopt.bench.gpu.worker", model, "--label", label, "--out", str(given.out), "--work", str(given.work),
        "--device", given.device, "--build-until", str(build_until), "--arms", arms,
    ]  # fmt: skip
    command += ["--steps", str(given.steps)]
    command += ["--small"] * given.small + ["--no-compile"] * given.no_compile
    command += ["--turn", str(given.work / f"{label}.turn")] if measuring else []
    for name in ("caches_in", "caches_out"):
        if getattr(given, name) is not None:
            command += [f"--{name.replace('_', '-')}", str(getattr(given, name))]
    own = {
        "TORCHINDUCTOR_CACHE_DIR": str(given.work / "inductor" / label),
        "TRITON_CACHE_DIR": str(given.work / "triton" / label),
        "TORCHINDUCTOR_COMPILE_THREADS": "8",
        "PYTHONUNBUFFERED": "1",
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:False",
        "HF_HUB_OFFLINE": "1",
    }
    log = (given.out / f"{label}.log").open("ab")
    return subprocess.Popen(command, env={**os.environ, **own}, stdout=log, stderr=subprocess.STDOUT)


def _ceilings(summary: Results) -> None:
    from diffopt.bench.gpu.ceilings import ceilings

    try:
        summary.data["ceilings"] = ceilings()
    except Exception:  # noqa: BLE001 - written down
        summary.data["ceilings_problem"] = traceback.format_exc()[-2000:]
    summary.keep()


def _print(out: Path, summary: Results, labels: list[str]) -> None:
    """Print a short table."""
    ceilings = dict(summary.data.get("ceilings", {}))
    for name, entry in ceilings.pop("attention_s", {}).items():
        shown = {
            k: f"{v * 1e6:.0f}us" if isinstance(v, float) else str(v)[:40] for k, v in entry.items() if k != "flops"
        }
        print(f"attention {name}: {shown}")
    print(ceilings, summary.data.get("ceilings_problem", ""))
    for model in labels:
        data = Results(out / f"{model}.json").data
        print(f"== {model}: {len(data.get('rounds', []))} rounds, flops {data.get('flops')}")
        for name, entry in data.get("arms", {}).items():
            ratio = data.get("ratios", {}).get(name, {})
            shown = {key: round(value["ratio"], 3) for key, value in ratio.items() if isinstance(value, dict)}
            print(f"   {name}: calls {entry.get('calls_s')} build {entry.get('build_s')} s, "
                  f"median {ratio.get('median_s')} {shown} error {entry.get('error')}")  # fmt: skip
        for name, problem in data.get("problems", {}).items():
            print(f"   ! {name}: {problem[:300]}")


if __name__ == "__main__":
    sys.exit(main())
