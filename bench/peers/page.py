"""The page of the comparison, from its results."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from diffopt.bench.outcome import Measured, outcome_from_json
from diffopt.bench.peers.levels import LEVELS, ROW, fastest, measured
from diffopt.bench.peers.measuring import HELDOUT_PROMPTS, SEARCH_PROMPTS
from diffopt.bench.peers.peer import Peer

INTRODUCTION = """# diffopt beside other tools

Written by `python -m diffopt.bench.peers page`; `make peers` installs each peer in an environment of its own below `out/peers`,
measures all, and writes this page anew. Every peer is one file in `bench/peers/recipes`: its text, unchanged, is the program that
is measured, by the evaluator that measures diffopt's own candidates (`docs/measuring.md`): a process of its own in the peer's
environment, interleaved pairs with the plain diffusers pipeline in ours, the parent's clock, the same prompts, seeds, metrics and
tiers. diffopt's programs are the emitted code of the traces that `diffopt compile` chose (`bench/results/demo-*-cpu.json`).

1. *Everything* is measured on {search} search prompts.
2. At each level the surest fast one of each kind (lower end of its interval) is measured on {heldout} held-out prompts; if it misses
   the level there, the next one gets its chance, three in all. So peers are chosen as diffopt's programs were.
3. Those are raced *face to face*: diffopt's program against the peer's in interleaved pairs, neither against plain diffusers.

*Packaged* is what a package or its documentation offers, fewer steps with another scheduler included; *by hand* is what we wrote
ourselves with an engine and without diffopt, as well as we could. Bars: 1.5 times the best package at `near`, 2 times at `traded`,
and faster than the best by hand at every level but the first, which is shown for orientation.
"""


def page(found: Mapping[str, Any], peers: Iterable[Peer]) -> str:
    """Return the page as Markdown."""
    peers = tuple(peers)
    lines = [INTRODUCTION.format(search=SEARCH_PROMPTS, heldout=HELDOUT_PROMPTS), _machine(found)]
    for model, results in found["models"].items():
        missing = _missing(model, results, peers)
        parts = (_levels(results), _noise(results), _all(results), _failed(results), missing)
        lines += ["", f"## {model}", *(line for part in parts if part for line in ("", *part))]
    lines += ["", "## Peers", "", *_sources(peers, found.get("versions", {}))]
    return "\n".join(lines).rstrip() + "\n"


def _machine(found: Mapping[str, Any]) -> str:
    environment, threads = found["environment"], found.get("threads")
    cores = "all its cores" if threads is None else f"{threads} core" + "s" * (threads != 1)
    memory = float(environment.get("memory_bytes", 0)) / 2**30
    return (
        f"Machine: {environment.get('cpu', 'unknown')}, {memory:.0f} GiB, {environment.get('system', '')}, "
        f"Python {environment.get('python', '')}; every program had {cores}. Raw samples are in `bench/results/peers-cpu.json`."
    )


def _noise(results: Mapping[str, Any]) -> list[str]:
    """Say what the machine can tell apart, and how busy it was."""
    lines = []
    if "self_test" in results:
        noise = results["self_test"]
        lines.append(f"Plain diffusers against itself: {noise['ratio']:.3g} [{noise['lo']:.3g}, {noise['hi']:.3g}].")
    rows = [*results.get("screen", {}).values(), *results.get("finals", {}).values()]
    rows += [race for races in results.get("direct", {}).values() for race in races.values()]
    loads = [row["outcome"]["latency"]["load_average"] for row in rows if "latency" in row["outcome"]]
    if loads:
        lines.append(
            f"Load average of the machine while rows were measured: {min(loads):.1f} to {max(loads):.1f}; with others' work "
            "beside, intervals are wide, and times are not told for that reason."
        )
    return lines


def _missing(model: str, results: Mapping[str, Any], peers: Iterable[Peer]) -> list[str]:
    known = results.get("screen", {})
    left = {
        peer.name: [arm for arm in peer.arms if f"{peer.name}: {arm}" not in known]
        for peer in peers
        if not peer.models or model in peer.models
    }
    told = "; ".join(f"{name} ({' / '.join(arms)})" for name, arms in left.items() if arms)
    return [f"Not measured yet (`make peers` goes on): {told}."] if told else []


def _levels(results: Mapping[str, Any]) -> list[str]:
    lines = [
        "| level | against | diffopt's program | theirs | face to face [95 %] | bar |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for level in LEVELS:
        races = results.get("direct", {}).get(level.name, {})
        for kind, bar in zip(("packaged", "by hand"), level.bars, strict=True):
            race = races.get(kind)
            if race is None:
                held = [fastest(results.get("finals", {}).values(), level, who)[:1] for who in ("diffopt", kind)]
                mine, other = (" / ".join(_told(row) for row in rows) for rows in held)
                lines.append(
                    f"| {level.name} | {kind} | {mine} | {other or 'none on held-out prompts yet'} | not raced | |"
                )
                continue
            ours, theirs = (results["finals"][race[side]] for side in ("ours", "theirs"))
            outcome = outcome_from_json(race["outcome"])
            direct = _ratio(outcome) if isinstance(outcome, Measured) else f"failed: {outcome.message[:80]}"
            verdict = _verdict(outcome, bar) if isinstance(outcome, Measured) else ""
            lines.append(f"| {level.name} | {kind} | {_told(ours)} | {_told(theirs)} | {direct} | {verdict} |")
    return lines


def _told(row: ROW) -> str:
    who = _trace(row["arm"]) if row["kind"] == "diffopt" else f"{row['who']}: {row['arm']}"
    return f"{who}; {_figures(row)}"


def _trace(text: str) -> str:
    """Return a trace without its defaults and its long numbers."""
    steps = re.search(r'fit-solver\{timesteps="([\d,]+)"', text)
    fitted = f"fit-solver{{{len(steps[1].split(','))} steps}}" if steps else ""
    text = re.sub(r"fit-solver\{[^}]*\}", fitted, text)
    return "`" + re.sub(r' (backend|schedule|branch|warm)="?\w+"?', "", text.replace('backend="openvino" ', "")) + "`"


def _figures(row: ROW) -> str:
    outcome = measured(row)
    if outcome is None:
        return "failed"
    fidelity = outcome.fidelity
    right = "" if fidelity.prompt_accuracy is None else f", {100 * fidelity.prompt_accuracy:.1f} % right"
    return f"{_ratio(outcome)} of plain, {_decibels(fidelity.psnr_median)} / {_decibels(fidelity.psnr_p10)} dB{right}"


def _decibels(value: float) -> str:
    return "≥ 120" if value >= 120 else f"{value:.1f}"


def _ratio(outcome: Measured) -> str:
    latency = outcome.latency
    return f"{latency.ratio:.3g}× [{latency.lo:.3g}, {latency.hi:.3g}]"


def _verdict(outcome: Measured, bar: float | None) -> str:
    if bar is None:
        return ""
    latency = outcome.latency
    said = "met" if latency.lo >= bar else "not told apart" if latency.hi >= bar else "missed"
    return f"≥ {bar:g}: {said}"


def _all(results: Mapping[str, Any]) -> list[str]:
    rows = [row for row in results.get("screen", {}).values() if measured(row) is not None]
    rows.sort(key=lambda row: -float(row["outcome"]["latency"]["ratio"]))
    lines = [
        "Everything that ran, on the search's prompts (accuracy of 16 prompts is coarse):", "",
        "| who | arm | × plain [95 %] | PSNR median / worst tenth, dB | prompts right (plain) | tier |",
        "| --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for row in rows:
        outcome = measured(row)
        assert outcome is not None
        fidelity = outcome.fidelity
        arm = _trace(row["arm"]) if row["kind"] == "diffopt" else row["arm"]
        lines.append(
            f"| {row['who']} | {arm} | {_ratio(outcome)} | {_decibels(fidelity.psnr_median)} / "
            f"{_decibels(fidelity.psnr_p10)} | {100 * (fidelity.prompt_accuracy or 0):.0f} % "
            f"({100 * (fidelity.baseline_prompt_accuracy or 0):.0f} %) | {outcome.tier} |"
        )
    return lines


def _failed(results: Mapping[str, Any]) -> list[str]:
    rows = [row for row in results.get("screen", {}).values() if measured(row) is None]
    if not rows:
        return []
    lines = ["What did not install or run here:", "", "| who | arm | what came |", "| --- | --- | --- |"]
    for row in rows:
        outcome = row["outcome"]
        lines.append(f"| {row['who']} | {row['arm']} | {outcome['kind']}: `{_one_line(outcome['message'])}` |")
    return lines


def _one_line(message: str) -> str:
    """Return the last line of a message that says anything, without what would break a table or name a place."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    said = lines[0] if lines else "nothing said"
    return re.sub(r"(/[\w.+-]+){3,}/", ".../", said).replace("|", "/").replace("`", "'")[:300]


def _sources(peers: Iterable[Peer], versions: Mapping[str, Mapping[str, str]]) -> list[str]:
    lines = ["| who | kind | source | licence | environment | to know |", "| --- | --- | --- | --- | --- | --- |"]
    for peer in peers:
        held = ", ".join(f"{name} {version}" for name, version in versions.get(peer.environment, {}).items())
        lines.append(
            f"| {peer.name} | {peer.kind} | {peer.source} | {peer.licence} | {held or 'not installed'} | {peer.note} |"
        )
    return lines
