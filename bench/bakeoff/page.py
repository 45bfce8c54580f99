"""The results of the bake-off as tables of a page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

START, END = "<!-- bakeoff -->\n", "<!-- end of bakeoff -->\n"


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Return the rows of one model as lines of a table."""
    lines = [
        (
            "| component | backend | precision | ratio to eager [95 %] | ms | of the ceiling | relative L2 error at 1, 2, 3 pictures "
            "| largest error | build | load and first call | size | peak memory |"
        ),
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        head = f"| {row['component']} | {row['backend']} | {row['precision']} | "
        if "failed" in row:
            lines.append(head + f"{row['failed']} | | | | | | | | |")
            continue
        errors = " / ".join(f"{value:.0e}" for value in row["relative_l2_error"])
        size = f"{row['bytes'] / 1e6:.1f} MB" if row["bytes"] else ""
        lines.append(
            head
            + f"{row['ratio']:.2f} [{row['lo']:.2f}, {row['hi']:.2f}] | {row['engine_ms']:.2f} (of {row['eager_ms']:.2f}) "
            f"| {share(row):.0%} | {errors} | {max(row['max_error']):.0e} | {row['build_s']:.1f} s | {row['first_call_s']:.2f} s "
            f"| {size} | {row['peak_bytes'] / 1e9:.2f} GB |"
        )
    return lines


def share(row: dict[str, Any]) -> float:
    """Return the engine's arithmetic per second over that of a matrix product in its precision, timed beside it."""
    ceiling = row["ceilings"]["bf16" if row["precision"] == "bf16" else "f32"]
    return float(row["gflop"] / (row["engine_ms"] / 1e3) / ceiling)


def best(rows: list[dict[str, Any]], *, within: float = 1e-2) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the fastest engine of each component, by model and component, with a relative L2 error at most `within`."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        place = row["model"], row["component"]
        if "failed" in row or max(row["relative_l2_error"]) > within:
            continue
        if place not in found or row["ratio"] > found[place]["ratio"]:
            found[place] = row
    return found


def write_page(page: Path, found: dict[str, Any]) -> None:
    """Put one table a model between the page's marks."""
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    versions = ", ".join(f"{name} {number}" for name, number in found["machine"]["versions"].items())
    cores = found["machine"]["environment"]["cores"]
    body = [f"{cores} core{'s' if cores > 1 else ''}, {versions}; raw samples in `bench/results/bakeoff-cpu.json`.", ""]
    for model in dict.fromkeys(row["model"] for row in found["rows"]):
        rows = [row for row in found["rows"] if row["model"] == model]
        body += [f"`{model}`", "", *table(rows), ""]
    page.write_text(f"{before}{START}" + "\n".join(body) + f"{END}{after}", encoding="utf-8")
