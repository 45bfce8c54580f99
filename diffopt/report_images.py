"""The images of a report: which pairs it shows, made small enough to stand inside the page."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass
from pathlib import Path

from diffopt import manifest_text as said
from diffopt.ir.description import JSON

MOST_PAIRS = 12
WORST_PAIRS = 4
LONGEST_SIDE = 384
"""Pixels; larger images are reduced, so that a report stays below about 15 MB."""

SIDES = ("baseline", "candidate")
"""Keys of a pair in `images.json`."""

SMALL_SIDE = 200
"""Pixels; images below it are shown enlarged, pixel by pixel."""


@dataclass(frozen=True)
class Pair:
    """The baseline's and the optimized image of one prompt and seed, as data URIs."""

    prompt: str
    seed: str
    psnr: str
    worst: bool
    baseline: str
    optimized: str
    small: bool


def pairs(folder: Path) -> tuple[list[Pair], int]:
    """Return the chosen pairs of a folder, and how many it lists."""
    entries, listed = chosen(folder)
    found = []
    for rank, entry in enumerate(entries):
        baseline, optimized = (_picture(file_of(folder, entry, side)) for side in SIDES)
        if baseline is None or optimized is None:
            continue
        prompt, psnr = said.text(entry, "prompt"), said.decibel(said.number(entry, "psnr"))
        seed, worst = said.count(entry, "seed"), rank < WORST_PAIRS
        found.append(Pair(prompt, seed, psnr, worst, baseline[0], optimized[0], baseline[1]))
    return found, listed


def chosen(folder: Path) -> tuple[list[JSON], int]:
    """Return the worst entries of a folder, then others spread evenly over the rest, and how many it lists.

    Entries whose images are not there are passed over: an artifact keeps only some of them.
    """
    try:
        listed: JSON = json.loads((folder / "images.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return [], 0
    entries = said.items(listed, "images")
    there = sorted(
        (entry for entry in entries if all(file_of(folder, entry, side).is_file() for side in SIDES)),
        key=lambda entry: said.number(entry, "psnr") or 0.0,
    )
    rest = there[WORST_PAIRS:]
    wanted = min(MOST_PAIRS - WORST_PAIRS, len(rest))
    spread = [rest[round(index * (len(rest) - 1) / max(wanted - 1, 1))] for index in range(wanted)]
    return [*there[:WORST_PAIRS], *spread], len(entries)


def file_of(folder: Path, entry: JSON, side: str) -> Path:
    """Return where one side of an entry stands."""
    return folder / Path(said.text(entry, side)).name


def _picture(path: Path) -> tuple[str, bool] | None:
    """Return an image as a PNG data URI, and whether it is small; None where it cannot be read."""
    from PIL import Image

    try:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}", max(image.size) < SMALL_SIDE
