"""The report of an artifact: one HTML file that needs nothing else, and a few plain lines for the terminal.

Any text in a manifest may be hostile (prompts, traces, paths): the template escapes all of it. Any field may be
missing: what is not there is shown as such.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from diffopt import manifest_text as said
from diffopt import report_images, report_plot
from diffopt.ir.description import JSON

COLUMNS = (
    "Speedup [95 %]",
    "ms per image",
    "PSNR in dB: median / worst tenth / worst",
    "Prompts followed (baseline)",
    "Feature distance (seed to seed)",
)


@dataclass(frozen=True)
class Row:
    """One program in a table: its cells under `COLUMNS`, or none and the problem that left them empty."""

    name: str
    note: str
    trace: str
    cells: tuple[str, ...]
    problem: str = ""
    warning: str = ""
    winner: bool = False


def write_report(manifest: Mapping[str, JSON], images: Path, out: Path) -> None:
    """Write the report of an artifact as one HTML file without scripts or outside resources.

    Args:
        manifest: the artifact's `manifest.json`; any field may be missing.
        images: folder with `images.json` and the pairs it lists, as `diffopt.bench.images` writes it; may be absent.
        out: the file to write.
    """
    from jinja2 import Environment, StrictUndefined

    template = resources.files("diffopt").joinpath("report.html.j2").read_text(encoding="utf-8")
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    points = report_plot.points(manifest)
    plots = [report_plot.draw(points, _guides(manifest), *size) for size in ((860, 440), (350, 400))]
    pairs, pairs_on_disk = report_images.pairs(images)
    html = page.from_string(template).render(
        verdict=verdict(manifest),
        columns=COLUMNS,
        ladder=_ladder(manifest),
        envelope=_envelope(manifest),
        controls=_controls(manifest),
        steps=_steps(manifest),
        witnesses=_witnesses(manifest),
        repeats=said.get(manifest, "result", "deterministic"),
        plots=[plot for plot in plots if plot is not None],
        failures=sum(said.text(trial, "outcome", "status") == "failed" for trial in said.items(manifest, "trials")),
        pairs=pairs,
        pairs_on_disk=pairs_on_disk,
        times=_times(manifest),
        memory=_memory(manifest),
        self_test=_self_test(manifest),
        facts=_facts(manifest),
        thresholds=list(said.flatten(said.get(manifest, "thresholds"))),
        trials=_trials(manifest),
        environment=list(said.flatten(said.get(manifest, "device"))),
        text=lambda *path: said.text(manifest, *path),
        nothing=said.NOTHING,
    )
    out.write_text(html, encoding="utf-8", errors="replace")


def verdict(manifest: Mapping[str, JSON]) -> str:
    """Return the outcome in one sentence: tier, ratio with its interval, fidelity, machine."""
    result, machine = said.get(manifest, "result"), said.machine(manifest)
    if said.number(result, "latency", "ratio") is None:
        goal = said.text(manifest, "goal", "tier")
        reason = f" ({failure})" if (failure := said.failure(result)) else ""
        return f"No program met the goal{f' of tier {goal}' if goal else ''}{reason}; measured on {machine}."
    fidelity = said.get(result, "fidelity")
    psnr, tenth = (said.decibel(said.number(fidelity, key)) for key in ("psnr_median", "psnr_p10"))
    followed = said.number(fidelity, "prompt_accuracy")
    base = said.share(said.number(fidelity, "baseline_prompt_accuracy"))
    prompts = "" if followed is None else f", {said.share(followed)} of prompts followed (baseline {base})"
    batch = said.batch(manifest)
    ours, theirs = (said.milliseconds(result, side, batch) for side in ("candidate_s", "baseline_s"))
    return (
        f"Tier {said.text(result, 'tier') or said.NOTHING}: {said.speedup(result)} as fast as the baseline "
        f"({ours} instead of {theirs} ms per image), with a paired PSNR of {psnr} dB in the median and {tenth} dB in "
        f"the worst tenth of {said.count(fidelity, 'images')} held-out {_moving(fidelity)}{prompts}; measured on {machine}."
    )


def _moving(fidelity: JSON) -> str:
    """Return what was compared, with what some machines or models alone can tell of it."""
    frames, ours, theirs = (said.number(fidelity, key) for key in ("frames", "flicker", "baseline_flicker"))
    distance = said.number(fidelity, "lpips_median")
    lpips = "" if distance is None else f", LPIPS {distance:.3f}"
    if ours is None or theirs is None:
        return f"images{lpips}"
    return f"videos of {frames or 0:.0f} frames (the worst frame of each{lpips}; flicker {ours:.1f}, baseline {theirs:.1f})"


def summary_lines(manifest: Mapping[str, JSON]) -> list[str]:
    """Return the verdict, the ladder and the control arms as lines of plain text."""
    rows = [*_ladder(manifest), *_envelope(manifest), *_controls(manifest)]
    header = ("", "speedup [95 %]", "ms", "PSNR med / p10 / worst", "prompts (base)", "distance (seeds)")
    lines = [header, *((row.name, *row.cells) for row in rows)]
    widths = [max(len(line[column]) for line in lines if column < len(line)) for column in range(len(header))]
    ends = ["", *(row.problem or row.warning for row in rows)]
    table = []
    for line, end in zip(lines, ends, strict=True):
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=False)]
        table.append("  ".join([*cells, end]).rstrip())
    return [said.plain(line) for line in (verdict(manifest), "", *table)]


def _ladder(manifest: Mapping[str, JSON]) -> list[Row]:
    result = said.get(manifest, "result")
    rows = [] if said.number(result, "latency", "ratio") is None else [_baseline(manifest)]
    for level in said.items(manifest, "levels"):
        name, outcome = said.text(level, "level"), said.get(level, "outcome")
        tier = said.text(outcome, "tier")
        asked = said.text(level, "requirement").rstrip(".")
        notes = [f"{asked[:1].upper()}{asked[1:]}." if asked else "", f"Held-out tier: {tier}." if tier else ""]
        note = " ".join(note for note in notes if note)
        row = _row(manifest, said.level_name(level), note, level, "no program of the search met it")
        missed = said.get(level, "met") is False or _missed(name, outcome)
        warning = "missed on held-out prompts" if missed and row.cells else ""
        rows.append(replace(row, warning=warning, winner=bool(row.cells) and row.trace == said.text(manifest, "trace")))
    if rows and not any(row.winner for row in rows):
        # No level's program: the search met none of them, and what changes least was taken.
        note = "The program of this artifact: what changes least."
        won: JSON = {"outcome": result, "trace": said.text(manifest, "trace")}
        rows.append(replace(_row(manifest, "the artifact", note, won, "not measured"), winner=True))
    return rows


def _envelope(manifest: Mapping[str, JSON]) -> list[Row]:
    """Return the winner at each other point of the workload envelope."""
    rows = []
    for point in said.items(manifest, "envelope"):
        high, wide, batch = (said.number(point, name) or 0 for name in ("height", "width", "batch"))
        workload = said.get(manifest, "workload")
        here = {**manifest, "workload": {**(workload if isinstance(workload, dict) else {}), "batch": batch}}
        tier = said.text(point, "outcome", "tier")
        note = f"The winner there. Held-out tier: {tier}." if tier else ""
        rows.append(_row(here, f"{wide:.0f}x{high:.0f}, batch {batch:.0f}", note, point, "not measured"))
    return rows


def _controls(manifest: Mapping[str, JSON]) -> list[Row]:
    rows = []
    for arm in said.items(manifest, "controls"):
        tier = said.text(arm, "outcome", "tier")
        rows.append(_row(manifest, said.text(arm, "name"), f"Tier: {tier}." if tier else "", arm, "not measured"))
    return rows


def _baseline(manifest: Mapping[str, JSON]) -> Row:
    result = said.get(manifest, "result")
    fidelity = said.get(result, "fidelity")
    accuracy, spread = (said.number(fidelity, key) for key in ("baseline_prompt_accuracy", "seed_distance"))
    cells = (
        "1×",
        said.milliseconds(result, "baseline_s", said.batch(manifest)),
        "is the reference",
        "no scorer" if accuracy is None else said.share(accuracy),
        "no scorer" if spread is None else f"({said.small(spread)})",
    )
    return Row("baseline", "The pipeline as it was, eager.", "", cells)


def _row(manifest: Mapping[str, JSON], name: str, note: str, data: JSON, missing: str) -> Row:
    outcome, trace = said.get(data, "outcome"), said.text(data, "trace")
    if said.number(outcome, "latency", "ratio") is None:
        return Row(name, note, trace, (), said.failure(outcome) or missing)
    fidelity = said.get(outcome, "fidelity")
    accuracy, distance = (said.number(fidelity, key) for key in ("prompt_accuracy", "feature_distance"))
    base = said.share(said.number(fidelity, "baseline_prompt_accuracy"))
    spread = said.small(said.number(fidelity, "seed_distance"))
    cells = (
        said.speedup(outcome),
        said.milliseconds(outcome, "candidate_s", said.batch(manifest)),
        " / ".join(said.decibel(said.number(fidelity, key)) for key in ("psnr_median", "psnr_p10", "psnr_worst")),
        "no scorer" if accuracy is None else f"{said.share(accuracy)} ({base})",
        "no scorer" if distance is None else f"{said.small(distance)} ({spread})",
    )
    return Row(name, note, trace, cells)


def _missed(name: str, outcome: JSON) -> bool:
    """Say whether an outcome falls short of what its level asks of the images."""
    from diffopt.search.goals import LEVELS, TIERS

    asked = next((level.constraints for level in LEVELS if level.name == name), None)
    psnr, tier = said.number(outcome, "fidelity", "psnr_median"), said.text(outcome, "tier")
    if asked is None or psnr is None:
        return False
    if asked.min_psnr is not None and psnr < asked.min_psnr:
        return True
    return asked.tier is not None and tier not in TIERS[: TIERS.index(asked.tier) + 1]


def _so_far(step: JSON) -> str:
    found = said.text(step, "so_far")
    return f"Up to here: {found}." if found else ""


def _steps(manifest: Mapping[str, JSON]) -> list[tuple[str, str]]:
    """Return each pass of the winning trace with its explanation; the trace alone where nothing explains it."""
    explained = [
        (said.text(step, "pass"), " ".join(filter(None, (said.text(step, "explanation"), _so_far(step)))))
        for step in said.items(manifest, "steps")
    ]
    return explained or [
        (part.strip(), "") for part in re.findall(r"[^,{]+(?:\{[^}]*\})?", said.text(manifest, "trace"))
    ]


def _witnesses(manifest: Mapping[str, JSON]) -> list[tuple[str, str, str]]:
    found = []
    for witness in said.items(manifest, "result", "witnesses"):
        shown = "did nothing" if said.number(witness, "count") == 0 else said.count(witness, "count")
        found.append((said.text(witness, "transform"), shown, said.text(witness, "detail")))
    return found


def _times(manifest: Mapping[str, JSON]) -> list[tuple[str, ...]]:
    """Return for each program name, load, build, first call, ms per image and the images that pay for its start."""
    arms = [*said.items(manifest, "levels"), *said.items(manifest, "controls")]
    arms.append({"name": "winner", "trace": said.text(manifest, "trace"), "outcome": said.get(manifest, "result")})
    names: dict[str, list[str]] = {}
    outcomes: dict[str, JSON] = {}
    for arm in arms:
        if said.number(arm, "outcome", "latency", "ratio") is not None:
            trace = said.text(arm, "trace")
            outcomes.setdefault(trace, said.get(arm, "outcome"))
            names.setdefault(trace, []).append(said.level_name(arm) or said.text(arm, "name"))
    batch = said.batch(manifest)
    found: list[tuple[str, ...]] = []
    for trace, outcome in outcomes.items():
        once = (said.seconds(said.number(outcome, key)) for key in ("load_s", "build_s", "first_call_s"))
        each = said.milliseconds(outcome, "candidate_s", batch)
        found.append((", ".join(names[trace]), *once, each, _break_even(outcome, batch)))
    return found


def _break_even(outcome: JSON, batch: float) -> str:
    """Return after how many images the longer start is paid for: load beyond the baseline's, and the first call."""
    build, first = said.number(outcome, "build_s"), said.number(outcome, "first_call_s")
    ours, theirs = said.call_s(outcome, "candidate_s"), said.call_s(outcome, "baseline_s")
    if build is None or first is None or ours is None or theirs is None:
        return said.NOTHING
    if ours >= theirs:
        return "never"
    calls = (build + max(0.0, first - ours)) / (theirs - ours)
    return f"{max(1, math.ceil(calls * batch)):,}" if math.isfinite(calls) else "never"


def _memory(manifest: Mapping[str, JSON]) -> str:
    ours, theirs = (said.number(manifest, "result", "memory", key) for key in ("peak_bytes", "baseline_peak_bytes"))
    if not ours or not theirs:
        return "Not measured."
    return (
        f"Peak of its processes: {said.size(ours)}; of the baseline's: {said.size(theirs)} (ratio {ours / theirs:.2f})."
    )


def _self_test(manifest: Mapping[str, JSON]) -> str:
    ratio, lo, hi = (said.number(manifest, "self_test", key) for key in ("ratio", "lo", "hi"))
    if ratio is None or not lo or not hi or min(lo, hi) <= 0:
        return "Not measured."
    resolution = max(abs(math.log(lo)), abs(math.log(hi)))
    return (
        f"The baseline against itself gave {ratio:.3f}× [{lo:.3f}, {hi:.3f}] over "
        f"{said.count(manifest, 'self_test', 'pairs')} pairs: ratios that differ by less than about "
        f"{100 * resolution:.1f} % cannot be told apart here."
    )


def _facts(manifest: Mapping[str, JSON]) -> list[tuple[str, str]]:
    latency, workload = said.get(manifest, "result", "latency"), said.get(manifest, "workload")
    goal = "; ".join(f"{name}: {value}" for name, value in said.flatten(said.get(manifest, "goal")))
    drift = said.number(latency, "drift")
    usual = f", the baseline at {drift:.2f} times its usual time" if drift is not None else ""
    spent = said.get(manifest, "seconds")
    stages = spent if isinstance(spent, dict) else {}
    return [
        ("Goal", goal or said.NOTHING),
        ("Prompts", f"{said.count(workload, 'search')} for the search, {said.count(workload, 'heldout')} held out"),
        (
            "Images",
            f"{said.count(workload, 'height')} × {said.count(workload, 'width')} pixels, batch {said.batch(manifest):g}",
        ),
        ("Seed", said.count(workload, "seed")),
        (
            "Timed pairs of the winner",
            f"{said.count(latency, 'pairs')}, ended: {said.text(latency, 'stopped') or said.NOTHING}",
        ),
        ("Machine meanwhile", f"{said.text(latency, 'state') or said.NOTHING}{usual}{_states(latency)}"),
        ("Floor", _floor(manifest)),
        (
            "Time spent",
            ", ".join(f"{name} {said.seconds(said.number(stages, name))}" for name in stages) or said.NOTHING,
        ),
    ]


def _states(latency: JSON) -> str:
    """Say in which states of the machine the pairs fell, where there were two."""
    states = said.items(latency, "states")
    if len(states) < 2:
        return ""
    parts = [f"{s[1]} pairs {s[0]} at {s[2]:.2f}×" for s in states if isinstance(s, list) and isinstance(s[2], float)]
    return f"; {', '.join(parts)}"


def _floor(manifest: Mapping[str, JSON]) -> str:
    """Say how fast the pipeline could be with a denoiser that takes no time."""
    ratio, lo, hi = (said.number(manifest, "floor", "latency", key) for key in ("ratio", "lo", "hi"))
    if ratio is None or lo is None or hi is None:
        return "not measured"
    return (
        f"with a denoiser that computes nothing {ratio:.2f}× [{lo:.2f}, {hi:.2f}]: no change of it alone can beat that"
    )


def _trials(manifest: Mapping[str, JSON]) -> list[tuple[str, ...]]:
    """Return for each trial id, origin, status, speedup, PSNR, remark and trace."""
    found: list[tuple[str, ...]] = []
    for trial in said.items(manifest, "trials"):
        outcome = said.get(trial, "outcome")
        row = _row(manifest, "", "", trial, "no outcome")
        inactive = ", ".join(str(name) for name in said.items(outcome, "inactive"))
        remark = row.problem or (f"did nothing: {inactive}" if inactive else "")
        status = said.text(outcome, "tier") or said.text(outcome, "status") or "unknown"
        numbers = (row.cells[0], row.cells[2]) if row.cells else (said.NOTHING, said.NOTHING)
        found.append((said.text(trial, "id"), said.text(trial, "origin"), status, *numbers, remark, row.trace))
    return found


def _guides(manifest: Mapping[str, JSON]) -> list[tuple[float, str]]:
    """Return the heights that mean something in the plot, in dB."""
    near = said.number(manifest, "thresholds", "near_psnr_median")
    other = said.number(manifest, "result", "fidelity", "seed_psnr_median")
    named = ((near, "near: median at least"), (other, "another seed of the baseline"))
    return [(value, f"{name} {value:.0f} dB") for value, name in named if value is not None]
