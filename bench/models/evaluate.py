"""How well built-in models follow held-out prompts: `python -m diffopt.bench.models.evaluate --model demo:shapes-xl`."""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from diffopt.backends.canny import canny
from diffopt.bench.models import Builtin, builtin, describe, shipped
from diffopt.bench.models.shapes_edges import ShapesEdges
from diffopt.bench.models.shapes_edges.agreement import agreement

RESULTS = Path(__file__).resolve().parents[1] / "results" / "models.json"
KEY = ("model", "steps", "device")


@dataclass(frozen=True)
class Followed:
    """What came of one model's prompts.

    Args:
        right: share of the images that show all their prompt asks for.
        attributes: mean share of what is asked for that is shown.
        seconds: of all calls, on a machine with other work.
        edges: mean agreement with the edges that were given, None for a model that takes none.
    """

    model: str
    device: str
    steps: int
    guidance: float
    prompts: int
    right: float
    attributes: float
    seconds: float
    edges: float | None = None


def main(arguments: Sequence[str] | None = None) -> None:
    """Evaluate models and write what came of it beside what the file holds already."""
    parser = argparse.ArgumentParser(prog="python -m diffopt.bench.models.evaluate", description=__doc__)
    parser.add_argument("--model", default=",".join(shipped()), help=f"some of {', '.join(shipped())}")
    parser.add_argument("--steps", type=int, default=None, help="instead of the baseline's")
    parser.add_argument("--prompts", type=int, default=1000, help="the first of the held-out ones, one image each")
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("-o", "--out", type=Path, default=RESULTS)
    given = parser.parse_args(arguments)
    for name in given.model.split(","):
        model = builtin(name)
        if model is None:
            parser.error(f"no model {name}; there are {', '.join(shipped())}")
        steps = given.steps or model.steps
        found = evaluate(model, steps=steps, prompts=given.prompts, batch=given.batch, device=given.device)
        _write(given.out, found)
        print(
            f"{found.model}: {found.steps} steps: {found.right:.1%} of {found.prompts} held-out prompts right in"
            f" everything, attributes {found.attributes:.2%}, {found.seconds:.0f} s"
            + ("" if found.edges is None else f", edges agree {found.edges:.2f}"),
            flush=True,
        )


def evaluate(model: Builtin, *, steps: int, prompts: int, batch: int = 50, device: str = "cpu") -> Followed:
    """Make an image of each of the first held-out prompts with the emitted baseline; prompt i starts from seed i."""
    import torch

    from diffopt.bench.fit import load_emitted
    from diffopt.ir.description import build_module

    pipe: Any = load_emitted(build_module(describe(model, steps=steps))).to(device)
    asked, scorer = model.prompts("heldout", prompts), model.scorer()
    right, attributes, edges, seconds = [], [], [], 0.0
    for start in range(0, prompts, batch):
        chosen = asked[start : start + batch]
        seeds = [torch.Generator().manual_seed(start + index) for index in range(len(chosen))]
        started = time.monotonic()
        images = np.asarray(pipe(**model.inputs(chosen), generator=seeds, output_type="np").images, dtype=np.float32)
        seconds += time.monotonic() - started
        right.append(scorer.correct(images, chosen))
        attributes.append(scorer.attributes_correct(images, chosen))
        if isinstance(model, ShapesEdges):
            edges.append(agreement(canny(np.rint(images * 255).astype(np.uint8)), canny(model.pictures(chosen))))
    return Followed(
        model=model.name,
        device=torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()}, {os.cpu_count()} cores",
        steps=steps,
        guidance=model.guidance,
        prompts=prompts,
        right=float(np.concatenate(right).mean()),
        attributes=float(np.concatenate(attributes).mean()),
        seconds=round(seconds, 1),
        edges=float(np.concatenate(edges).mean()) if edges else None,
    )


def _write(path: Path, found: Followed) -> None:
    held = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"models": []}
    new = asdict(found)
    kept = [row for row in held["models"] if [row.get(key) for key in KEY] != [new[key] for key in KEY]]
    packages = {name: version(name) for name in ("torch", "diffusers", "transformers")}
    table = {
        "command": "python -m diffopt.bench.models.evaluate",
        "versions": packages,
        "models": sorted([*kept, new], key=lambda row: (row["model"], -row["steps"])),
    }
    path.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
