"""Write docs/evidence.md and its plots from the results of the studies: `python -m diffopt.studies.page`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffopt.studies.drawing import bars, dots

ROOT = Path(__file__).resolve().parents[2]
RESULTS, PAGE, PLOTS = ROOT / "bench" / "results", ROOT / "docs" / "evidence.md", ROOT / "docs" / "evidence"

WAYS = ("pairs", "racing", "blocks")

HEAD = """# Evidence

How far the measurements can be trusted, by studies of the measuring itself. This page is written by
`python -m diffopt.studies.page` from the results in `bench/results/`; each section names the command that made them.
`docs/measuring.md` says how things are measured.
"""

RACING = """## Racing: is "faster" true?

Pieces of known work run through the same racing, pairs and intervals as any candidate, in one process. A trial races one
against another that does so many percent more; the truth is known by construction ({overhead_ms:.2f} ms of each call
is not work, {call_ms:.1f} ms is). *Pairs* takes all 30 pairs, *racing* stops as the search does (5 pairs at least, half the
interval under 2 %), *blocks* times 30 calls of one and then 30 of the other, as most benchmarks do. A load of this study's own
came and went on the same core, which is more than most machines have while somebody measures: where half an interval is wider than
the effect, the effect cannot be told within 30 pairs, and the intervals say so.
"""

TIERS = """## Tiers: what loses them

Images of `demo:shapes` made worse on purpose, judged as a candidate's are. Dots have the colour of the tier: blue `exact`, green
`near`, orange `traded`, grey `changed`. Noise and blur are of the images; a share of them is of another seed or another prompt; the
last two change the steps and round the denoiser's weights.

What the thresholds rest on: weights of 12 bits are off by 0.2 % at the worst step, twice what `exact` allows of float32. `near`
ends where images are as far as another seed's (38 dB on this model), where a blur changes the features more than seeds do, and at
four bits. Swapped prompts are caught by reading the prompts back, at one in twenty, and by nothing else: their features are of the
right kind. What is not caught: a few images of another seed, up to a quarter here, stay within the worst tenth, and `near`.

The first judging of these images led to stricter thresholds (decision 35); the figures are the same, the tiers are today's.
"""


def main() -> None:
    """Write the page of the studies whose results are there."""
    PLOTS.mkdir(parents=True, exist_ok=True)
    parts = [HEAD]
    for name, section in (
        ("calibration", racing), ("calibration-quiet", quiet), ("calibration-workers", workers), ("degradations", tiers),
        ("stability", stability), ("faults", faults), ("effects", effects),
    ):  # fmt: skip
        file = RESULTS / f"{name}-cpu.json"
        if file.is_file():
            study = json.loads(file.read_text(encoding="utf-8"))
            parts += [*section(study), _made_by(study)]
    PAGE.write_text("\n".join(parts).rstrip() + "\n", encoding="utf-8")


def cores(machine: Mapping[str, Any]) -> str:
    """Return how many cores a study had."""
    return f"{machine['cores']} core{'s' * (machine['cores'] != 1)}"


def racing(study: Mapping[str, Any]) -> list[str]:
    """Return the section on calibration."""
    call = 100 * study["unit_s"]
    for key, title, band in (
        ("covered", "intervals that hold the truth, %", (90.0, 98.0)),
        ("faster", "trials called faster, %", None),
    ):
        groups = {f"{row['percent']} % planted": {w: 100 * row[w][key] for w in WAYS} for row in study["effects"]}
        (PLOTS / f"racing-{key}.svg").write_text(bars(title, groups, top=100.0, band=band), encoding="utf-8")
    plots = "![coverage](evidence/racing-covered.svg) ![called faster](evidence/racing-faster.svg)"
    legend = "Blue: all pairs; green: racing; red: blocks. The band is 90 to 98 %.\n"
    text = RACING.format(overhead_ms=1e3 * study["overhead_s"], call_ms=1e3 * call)
    return [text, plots, "", legend, *_verdicts(study), ""]


def quiet(study: Mapping[str, Any]) -> list[str]:
    """Return the section on calibration without a load of its own."""
    text = "### The same without that load\n\nThe other core was at work meanwhile.\n"
    return [text, *_verdicts(study), ""]


def workers(study: Mapping[str, Any]) -> list[str]:
    """Return the section on a pipeline against itself through real workers."""
    text = "### The same through workers\n\nA fresh worker process for every trial, as a candidate has it.\n"
    return [text, *_verdicts(study), ""]


def _verdicts(study: Mapping[str, Any]) -> list[str]:
    rows = []
    for row in study["effects"]:
        for way in WAYS:
            found = row[way]
            share = found["covered"]
            error = math.sqrt(share * (1 - share) / row["count"])
            rows.append(
                (f"{row['percent']} %", way, row["count"], f"{100 * share:.1f} % ± {100 * error:.1f}",
                 f"{100 * found['faster']:.1f} %", f"{100 * found['slower']:.1f} %", f"{100 * found['half_width']:.1f} %",
                 f"{found['pairs']:.0f}", f"{100 * found['worst_error']:.0f} %")
            )  # fmt: skip
    head = ("planted", "way", "trials", "interval holds the truth", "said faster", "said slower", "half width", "pairs",
            "worst error")  # fmt: skip
    return _table(head, rows)


def tiers(study: Mapping[str, Any]) -> list[str]:
    """Return the section on planted degradations."""
    rows, kinds = [], dict.fromkeys(row["kind"] for row in study["rows"])
    for row in study["rows"]:
        f = row["fidelity"]
        error = f["denoiser_error"]
        rows.append(
            (row["kind"], f"{row['strength']:g}", f"{f['psnr_median']:.1f}", f"{f['psnr_worst']:.1f}",
             f"{f['ssim_median']:.3f}", f"{f['ms_ssim_median']:.3f}", f"{f['cosine_median']:.3f}",
             f"{100 * f['prompt_accuracy']:.1f} %", f"{f['feature_distance'] / max(f['seed_distance'], 1e-12):.2f}",
             "" if error is None else f"{100 * error:.2g} %", row["tier"])
        )  # fmt: skip
    limits = study["thresholds"]
    plots = []
    for kind in kinds:
        chosen = [row for row in study["rows"] if row["kind"] == kind]
        name = kind.replace(" ", "-")
        rules = {"near": limits["near_psnr_median"]}
        values = [min(row["fidelity"]["psnr_median"], 80.0) for row in chosen]
        chart = dots(
            f"{kind}: median PSNR, dB", [f"{row['strength']:g}" for row in chosen], values,
            [row["tier"] for row in chosen], rules,
        )  # fmt: skip
        (PLOTS / f"tier-{name}.svg").write_text(chart, encoding="utf-8")
        plots.append(f"![{kind}](evidence/tier-{name}.svg)")
    head = ("damage", "strength", "PSNR median", "worst", "SSIM", "MS-SSIM", "cosine", "prompts right",
            "feature distance / seeds'", "denoiser off", "tier")  # fmt: skip
    return [TIERS, *plots, "", *_table(head, rows), ""]


def stability(study: Mapping[str, Any]) -> list[str]:
    """Return the section on the stability of tiers."""
    count = len(study["runs"])
    rows = []
    for trace, found in study["tiers"].items():
        ratios = sorted(run[trace]["ratio"][0] for run in study["runs"] if "ratio" in run[trace])
        said = ", ".join(f"{tier} {times} times" for tier, times in found.items())
        rows.append((f"`{trace}`", said, f"{ratios[0]:.2f} to {ratios[-1]:.2f}" if ratios else ""))
    text = f"## Tiers: are they stable?\n\nThe same programs in {count} runs, each with fresh processes and references of its own.\n"
    return [text, *_table(("program", "tier", "speed-up over the runs"), rows), ""]


def faults(study: Mapping[str, Any]) -> list[str]:
    """Return the section on bisect."""
    rows = [
        (f"`{case['planted']}`", len(case["passes"]), case["verdict"], case["measured"], f"{case['allowed']:.1f}",
         "" if case["step"] is None else f"step {case['step'] + 1}", case["layer"] or case["note"])
        for case in study["cases"].values()
    ]  # fmt: skip
    head = ("bad pass", "passes", "bisect", "measured", "fewer than", "begins", "layer")
    text = (
        "## Bisect: is the bad pass named?\n\nTen pipelines of `demo:shapes`, each with one bad pass among good ones.\n"
    )
    return [text, *_table(head, rows), ""]


def effects(study: Mapping[str, Any]) -> list[str]:
    """Return the section on what passes bought."""
    parts = ["## Explain: do effects sum to the whole?\n"]
    for name, case in study["artifacts"].items():
        if "text" not in case:
            parts.append(f"{name}: {case['reason']}\n")
            continue
        verdict = "within" if case["sums_within"] else "not within"
        agrees = "reaches" if case["reaches_recorded"] else "does not reach"
        parts.append(
            f"{name}: the effects multiply to {case['sum']:.3f}x, {verdict} the interval of the whole as measured beside them"
            f" [{case['interval'][0]:.3f}, {case['interval'][1]:.3f}], which {agrees} the interval in its manifest.\n"
        )
        parts += ["```", *case["text"], "```", ""]
    return parts


def _made_by(study: Mapping[str, Any]) -> str:
    machine = study["machine"]
    versions = machine["versions"]
    return (
        f"Made by `{study['command']}` on {machine['cpu']}, {cores(machine)}, torch {versions.get('torch')},"
        f" diffusers {versions.get('diffusers')}; load average then {machine['load_average'][0]}.\n"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(str(cell).replace("|", "/") for cell in line) + " |" for line in lines]


if __name__ == "__main__":
    main()
