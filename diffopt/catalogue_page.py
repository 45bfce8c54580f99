"""The page of all passes, derived from their declarations: `python -m diffopt.catalogue_page` writes docs/passes.md."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path

from diffopt.ir.description import JSON
from diffopt.passes.base import DiffusionPass, options, registry
from diffopt.passes.rules import table

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "passes.md"
MEASURED = ROOT / "bench" / "results" / "passes-cpu.json"

INTRODUCTION = """\
# Passes

Written by `python -m diffopt.catalogue_page` from the declarations in `passes/`, not by hand. `diffopt passes NAME`
says more of each. Effects are those of the pass alone, with its default options, on the first built-in model that takes it
(`demo:shapes` where none is named), measured by `python -m diffopt.bench.passes`: the ratio of the baseline's latency to
the pass's, with its 95 % interval (above 1 is faster), what became of the images, the denoiser's teacher-forced error where
the tier asks for it (docs/measuring.md), and the tier they keep. That exact passes are exact is also tested, step by step
on every built-in model (`tests/passes/test_exact_on_builtins.py`: each step within 0.1 %, each value of a picture within
1/255), and that no request leaves anything for the next (`tests/backends/runtime/test_no_state_leaks.py`).
"""


def page(measured: Mapping[str, JSON]) -> str:
    """Return the page, with what was measured of each pass where there is something."""
    lines = [INTRODUCTION]
    environment = measured.get("environment")
    lines += [f"Measured on: {environment}." if environment else "Effects were not measured yet.", ""]
    effects = measured.get("passes")
    effects = effects if isinstance(effects, Mapping) else {}
    lines += ["| pass | family | tier | what it does | effect alone |", "| --- | --- | --- | --- | --- |"]
    for name, found in registry().items():
        effect = effects.get(name, "")
        lines.append(
            f"| [{name}](#{name}) | {found.family.value} | {found.tier.value} | {_summary(found)} | {effect} |"
        )
    for name, found in registry().items():
        lines += ["", f"## {name}", "", f"{_summary(found)} Family {found.family.value}, tier {found.tier.value}"]
        lines[-1] += "; only on request." if found.on_request else "."
        lines += ["", *(f"- **{heading}** {text}" for heading, text in _sections(found))]
        given = [f"`{o.name}`: {_kind(o.choices, o.type)} = `{o.default!r}`".replace("'", '"') for o in options(found)]
        lines += [f"- **Options:** {'; '.join(given) or 'none'}"]
        rules = [f"{row.rule} `{row.about}`{row.reason and f' ({row.reason})'}" for row in table(found)]
        lines += [f"- **Rules:** {'; '.join(rules) or 'none'}"]
    return "\n".join(lines) + "\n"


def _kind(choices: tuple[object, ...], kind: str) -> str:
    return " or ".join(f"`{choice}`" for choice in choices) if choices else kind


def _sections(found: type[DiffusionPass]) -> list[tuple[str, str]]:
    """Return the headings of a docstring with their text on one line."""
    sections: list[tuple[str, str]] = []
    for line in (inspect.getdoc(found) or "").split("\n")[1:]:
        heading, colon, rest = line.partition(": ")
        if colon and heading in ("What it does", "When it helps", "Refuses when", "What it costs", "References"):
            sections.append((f"{heading}:", rest))
        elif sections and line.strip():
            sections[-1] = (sections[-1][0], f"{sections[-1][1]} {line.strip()}")
    return sections


def _summary(found: type[DiffusionPass]) -> str:
    return (inspect.getdoc(found) or "").split("\n")[0]


def measurements() -> Mapping[str, JSON]:
    """Return what was measured, empty where nothing was."""
    found: Mapping[str, JSON] = json.loads(MEASURED.read_text(encoding="utf-8")) if MEASURED.is_file() else {}
    return found


def main() -> int:
    """Write the page."""
    PAGE.write_text(page(measurements()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
