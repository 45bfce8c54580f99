"""Whether the effects of passes sum to what was measured: `python -m diffopt.studies.effects`.

Three artifacts of demo:shapes are compiled with given passes, and their parts measured as `diffopt explain --effects` does.
Writes bench/results/effects-cpu.json.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffopt.api import Goal, compile
from diffopt.bench import device
from diffopt.effects import Effects, effects_lines, effects_of_artifact

RESULTS = Path(__file__).resolve().parents[2] / "bench" / "results" / "effects-cpu.json"
ARTIFACTS = {
    "structure": "channels-last,guidance-window{stop=0.9},reuse-prompt-embeddings",
    "arithmetic": "fuse-qkv,quantize,constant-embeddings",
    "cache": "cache-features{interval=2},vae-channels-last,constant-embeddings",
}
PROMPTS = 6


def main(arguments: Sequence[str] | None = None) -> None:
    """Compile, explain, and write what came of it."""
    parser = argparse.ArgumentParser(prog="python -m diffopt.studies.effects", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=tuple(ARTIFACTS), default=tuple(ARTIFACTS))
    parser.add_argument("--steps", default="12", help="of the baseline")
    parser.add_argument("-o", "--out", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    for name in given.only:
        case = _case(ARTIFACTS[name], given.steps)
        study = json.loads(given.out.read_text()) if given.out.is_file() else {"artifacts": {}}
        study["artifacts"][name] = case
        study |= {
            "machine": device.environment(),
            "command": f"python -m diffopt.studies.effects --steps {given.steps}",
        }
        given.out.write_text(json.dumps(study, indent=1) + "\n", encoding="utf-8")
        print("\n".join([name, *case.get("text", [case.get("reason", "")])]), flush=True)


def _case(passes: str, steps: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="diffopt-effects-") as scratch:
        out, prompts = Path(scratch) / "artifact", Path(scratch) / "prompts.txt"
        prompts.write_text("\n".join(_prompts()))
        artifact = compile(
            "demo:shapes",
            out,
            goal=Goal("traded"),
            passes=passes,
            prompts=prompts,
            settings={"steps": steps},
            controls=False,
        )
        if artifact is None:
            return {"passes": passes, "reason": "the artifact did not meet its goal"}
        found = effects_of_artifact(out, prompts=PROMPTS)
    if not isinstance(found, Effects):
        return {"passes": passes, "reason": found}
    total, (lo, hi) = sum(e.shapley for e in found.latency.effects), found.latency.total_interval
    recorded = found.recorded
    return {
        "passes": passes,
        "sum": math.exp(total),
        "measured": math.exp(found.latency.total),
        "interval": [math.exp(lo), math.exp(hi)],
        "sums_within": lo <= total <= hi,
        "recorded": recorded,
        "reaches_recorded": recorded is not None and math.exp(lo) <= recorded[1] and recorded[0] <= math.exp(hi),
        "effects": found.to_json(),
        "text": effects_lines(found),
    }


def _prompts() -> list[str]:
    from diffopt.bench.models.shapes import SHAPES

    return [*SHAPES.prompts("search", 8), *SHAPES.prompts("heldout", 8)]


if __name__ == "__main__":
    main()
