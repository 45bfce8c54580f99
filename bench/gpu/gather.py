"""Gather what GPU runs wrote into one small file: `python -m diffopt.bench.gpu.gather --run NAME=FOLDER ... --out FILE`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

JSON: TypeAlias = dict[str, Any]
VERSION = 1
SHOWN = 12
"""Events of a trace's excerpt that are kept."""


def gathered(folder: Path, untimed: dict[str, str]) -> JSON:
    """Return what one run wrote, without logs.

    untimed: label to the reason why its timings are left out.
    """
    found: JSON = {"models": {}}
    for path in sorted(folder.glob("*.json")):
        data = json.loads(path.read_text(encoding="utf-8"))
        if path.stem == "run":
            found |= {key: data[key] for key in ("stage", "minutes", "seconds", "ceilings", "late") if key in data}
        elif path.stem == "kernels":
            found["kernels"] = {key: data[key] for key in ("environment", "ceilings")}
            found["kernels"]["cases"] = {name: _case(case) for name, case in data["cases"].items()}
        elif "arms" in data:
            found["models"][path.stem] = _model(data, untimed.get(path.stem, untimed.get("*", "")))
    return found


def _model(data: JSON, untimed: str) -> JSON:
    left_out = ("logs", "notes", "version", "small")
    kept = {key: value for key, value in data.items() if key not in left_out}
    kept["problems"] = {name: text.splitlines()[0][:160] for name, text in data["problems"].items()}
    if "loop_trace" in kept:
        kept["loop_trace"] = {**kept["loop_trace"], "excerpt": kept["loop_trace"]["excerpt"][:SHOWN]}
    if untimed:
        for key in ("rounds", "ratios", "fewer_steps"):
            kept.pop(key, None)
        kept["untimed"] = untimed
    rounded: JSON = _rounded(kept)
    return rounded


def _case(case: JSON) -> JSON:
    kept = {key: case[key] for key in ("error", "tolerance", "median_us", "spread_us", "against") if key in case}
    failures = case.get("failures", {})
    return kept | {"failures": {name: text.strip().splitlines()[-1][:120] for name, text in failures.items()}}


def _rounded(value: Any) -> Any:
    """Keep six digits of numbers."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    return [_rounded(entry) for entry in value] if isinstance(value, list) else value


def main(arguments: Sequence[str]) -> int:
    """Gather and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", action="append", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--say", action="append", default=[], metavar="NAME=TEXT", help="what the run was")
    parser.add_argument("--untimed", action="append", default=[], metavar="NAME/LABEL=REASON", help="LABEL may be *")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    said = dict(text.split("=", 1) for text in given.say)
    runs: JSON = {}
    for name, folder in (text.split("=", 1) for text in given.run):
        named = (text.split("=", 1) for text in given.untimed)
        untimed = {key.partition("/")[2]: reason for key, reason in named if key.partition("/")[0] == name}
        runs[name] = {"said": said.get(name, ""), **gathered(Path(folder), untimed)}
    text = json.dumps({"version": VERSION, "runs": runs}, indent=None, separators=(",", ":"))
    given.out.write_text(text.replace('},"', '},\n"') + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
