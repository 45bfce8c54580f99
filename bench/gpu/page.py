"""Make the tables of `docs/gpu.md` from kept results: `python -m diffopt.bench.gpu.page` writes them between its marks."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

JSON: TypeAlias = Mapping[str, Any]
RESULTS = Path("bench/results/gpu-h200.json")
PAGE = Path("docs/gpu.md")
BARS = (("ours-regional", "stock", 1.15), ("ours-near", "stock", 1.8), ("ours-traded", "eager", 4.0))
"""Arm, what it is held against, and by how many times it is to be faster."""
EXACT = ("eager", "stock", "ours-regional", "ours-whole", "ours-plain")
"""Beginnings of the arms that compute all that the model says in its dtype."""


def tables(found: JSON) -> dict[str, str]:
    """Return the tables by name."""
    timed = [
        (run, name, model)
        for run, entry in found["runs"].items()
        for name, model in entry["models"].items()
        if model.get("rounds")
    ]
    made = {name: "\n".join(_arms(found, run, model)) for run, name, model in timed}
    made["bars"] = "\n".join(_bars(timed))
    made["fewer"] = "\n".join(_fewer(timed))
    made["builds"] = "\n".join(_builds(found))
    made["ceilings"] = "\n".join(_ceilings(found))
    made["kernels"] = "\n".join(_kernels(found))
    return made


def written(page: str, made: Mapping[str, str]) -> str:
    """Return the page with each table between `<!-- NAME -->` and `<!-- end -->`.

    Raises:
        KeyError: the page asks for a table that is not made.
    """
    return re.sub(
        r"<!-- table (\w+) -->\n.*?<!-- end -->",
        lambda mark: f"<!-- table {mark[1]} -->\n{made[mark[1]]}\n<!-- end -->",
        page,
        flags=re.DOTALL,
    )


def roofline_s(found: JSON, model: JSON) -> float:
    """Return the seconds that one image's sums would take at the measured rate of bfloat16 products."""
    *_, rate = [run["ceilings"]["bf16_tflops"] for run in found["runs"].values() if "ceilings" in run]
    denoiser = sum(value for part, value in model["flops"].items() if part != "vae")
    return float((denoiser * model["call"]["steps"] + model["flops"]["vae"]) / rate / 1e12)


def best_stock(model: JSON) -> str:
    """Return the fastest stock arm."""
    stock = [name for name in model["ratios"] if name.startswith("stock")]
    fastest: str = min(stock, key=lambda name: float(model["ratios"][name]["median_s"]))
    return fastest


def _arms(found: JSON, run: str, model: JSON) -> Iterator[str]:
    stock = best_stock(model)
    yield f"| arm | s an image | × eager | × {stock} | error to eager | to float32 | GB weights + call | of roofline |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for name in model["arms"]:
        if name not in model["ratios"]:
            continue
        ratio, arm = model["ratios"][name], model["arms"][name]
        seconds = ratio["median_s"]
        near = f"{roofline_s(found, model) / seconds:.0%}" if name.startswith(EXACT) else ""
        memory = f"{arm['weights_bytes'] / 1e9:.1f} + {arm['call_bytes'] / 1e9:.1f}"
        error = arm["error"] if isinstance(arm["error"], dict) else {}
        yield (
            f"| {name} | {seconds:.3f} | {_interval(ratio.get('over_eager'))} | {_interval(ratio.get(f'over_{stock}'))} "
            f"| {_error(error.get('to_eager')) or arm['error']} | {_error(error.get('to_float32'))} | {memory} | {near} |"
        )
    rounds = len(model["rounds"])
    yield (
        f"\nRun {run}, {rounds} interleaved rounds, {model['call']['steps']} steps; the roofline is "
        f"{roofline_s(found, model):.2f} s."
    )


def _bars(timed: Sequence[tuple[str, str, JSON]]) -> Iterator[str]:
    yield "| model | arm | bar | measured | |"
    yield "| --- | --- | --- | --- | --- |"
    for _, name, model in timed:
        for arm, base, bar in BARS:
            against = model["ratios"][arm][f"over_{best_stock(model) if base == 'stock' else base}"]
            verdict = "met in time" if against["lo"] >= bar else "missed"
            yield f"| {name} | {arm} | {bar:g} × {base} | {_interval(against)} | {verdict} |"
        trace = model["loop_trace"]
        verdict = "met" if trace["launches"] == model["call"]["steps"] and not trace["waits"] else "missed"
        yield f"| {name} | loop | no wait | {trace['launches']} launches, {len(trace['waits'])} waits | {verdict} |"


def _fewer(timed: Sequence[tuple[str, str, JSON]]) -> Iterator[str]:
    yield "| model | ours-traded, s | control | steps | s |"
    yield "| --- | --- | --- | --- | --- |"
    for _, name, model in timed:
        for base, control in model["fewer_steps"].items():
            traded = model["ratios"]["ours-traded"]["median_s"]
            yield f"| {name} | {traded:.3f} | {base} | {control['steps']} | {control['median_s']:.3f} |"


def _builds(found: JSON) -> Iterator[str]:
    yield "| run | model | arm | built in, s | |"
    yield "| --- | --- | --- | --- | --- |"
    for run, entry in found["runs"].items():
        for name, model in entry["models"].items():
            for arm, built in model["arms"].items():
                if "build_s" in built:
                    yield f"| {run} | {name} | {arm} | {built['build_s']:.0f} | |"
            for arm, problem in model["problems"].items():
                yield f"| {run} | {name} | {arm} | | {problem[:90]} |"


def _ceilings(found: JSON) -> Iterator[str]:
    yield "| run | bf16, TFLOP/s | fp8 row-wise | fp8, exact sums | copy, TB/s |"
    yield "| --- | --- | --- | --- | --- |"
    rates = ("bf16_tflops", "fp8_rowwise_tflops", "fp8_rowwise_tflops_exact_accumulation")
    runs = {name: entry["ceilings"] for name, entry in found["runs"].items() if "ceilings" in entry}
    for name, ceilings in runs.items():
        yield (
            f"| {name} | " + " | ".join(f"{ceilings[rate]:.0f}" for rate in rates) + f" | {ceilings['copy_tb_s']:.2f} |"
        )
    *_, attention = [ceilings["attention_s"] for ceilings in runs.values()]
    kinds = ("default", "CUDNN_ATTENTION", "FLASH_ATTENTION", "EFFICIENT_ATTENTION")
    yield "\n| attention | default, µs | cuDNN | flash | efficient | default, TFLOP/s |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for name, entry in attention.items():
        times = " | ".join(f"{entry[kind] * 1e6:.0f}" for kind in kinds)
        yield f"| {name} | {times} | {entry['flops'] / entry['default'] / 1e12:.0f} |"


def _kernels(found: JSON) -> Iterator[str]:
    *_, kernels = [run["kernels"] for run in found["runs"].values() if "kernels" in run]
    yield "| case | error | eager, µs | inductor, µs | ours, µs | × inductor | |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for name, case in kernels["cases"].items():
        times, against = case["median_us"], case["against"]["inductor"]
        verdict = "wins" if against[1] > 1 else "loses" if against[2] < 1 else "ties"
        yield (
            f"| {name} | {case['error']:.1e} | {times['eager']:.1f} | {times['inductor']:.1f} | {times['ours']:.1f} "
            f"| {against[0]:.2f} [{against[1]:.2f}, {against[2]:.2f}] | {verdict} |"
        )


def _interval(entry: JSON | None) -> str:
    return "" if entry is None else f"{entry['ratio']:.2f} [{entry['lo']:.2f}, {entry['hi']:.2f}]"


def _error(entry: JSON | None) -> str:
    return "" if entry is None else f"{entry['mean']:.3f}, worst {entry['worst']:.3f}"


def main(arguments: Sequence[str]) -> int:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, default=PAGE)
    given = parser.parse_args(arguments)
    found = json.loads(given.results.read_text(encoding="utf-8"))
    given.page.write_text(written(given.page.read_text(encoding="utf-8"), tables(found)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
