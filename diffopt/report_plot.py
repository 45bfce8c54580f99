"""The Pareto plot of a report: which points there are, and where they and their names stand in pixels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

from diffopt import manifest_text as said
from diffopt.ir.description import JSON

Box: TypeAlias = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""

HIGHEST_PSNR = 80.0
"""dB; everything above is drawn at this height: no eye tells such images apart."""

_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 14, 30, 44
_CHARACTER, _LINE = 6.7, 14
_SERIES = ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8))
_OFFSETS = (0, -15, 15, -30, 30, -45, 45, -60, 60, -80, 80)


@dataclass(frozen=True)
class Point:
    """A measured program; `kind` is "trial", "winner", "control" or "baseline"."""

    kind: str
    name: str
    tier: str
    ratio: float
    lo: float
    hi: float
    psnr: float

    @property
    def title(self) -> str:
        """What a pointer that rests on the mark shows."""
        if self.kind == "baseline":
            return "baseline: 1×"
        interval = f"[{said.times(self.lo)}, {said.times(self.hi)}]"
        return f"{self.name}: {said.times(self.ratio)} {interval}, {said.decibel(self.psnr)} dB, {self.tier}"


@dataclass(frozen=True)
class Mark:
    """A point in pixels, with the ends of its interval."""

    point: Point
    x: float
    y: float
    left: float
    right: float


@dataclass(frozen=True)
class Label:
    """A name near the mark at (`to_x`, `to_y`); its text starts or ends at `x`, and `y` is its middle."""

    text: str
    kind: str
    anchor: str
    x: float
    y: float
    to_x: float
    to_y: float

    @property
    def far(self) -> bool:
        """Whether a line should lead back to the mark."""
        return abs(self.y - self.to_y) > _LINE + 2

    @property
    def box(self) -> Box:
        """Left, top, right and bottom of the text, about."""
        width = _CHARACTER * len(self.text)
        left = self.x - width if self.anchor == "end" else self.x
        return left, self.y - _LINE / 2, left + width, self.y + _LINE / 2


@dataclass(frozen=True)
class Plot:
    """A drawn plot: the frame (left, top, right, bottom), ticks and guides as (pixel, text), corners of the front."""

    width: int
    height: int
    frame: Box
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    guides: tuple[tuple[float, str], ...]
    marks: tuple[Mark, ...]
    labels: tuple[Label, ...]
    front: str


def points(manifest: Mapping[str, JSON]) -> list[Point]:
    """Return what a manifest measured; winners of several levels that are one program are one point."""
    found = [_point("trial", said.text(it, "trace") or "no pass", it) for it in said.items(manifest, "trials")]
    levels: dict[str, tuple[list[str], JSON]] = {}
    for level in said.items(manifest, "levels"):
        levels.setdefault(said.text(level, "trace"), ([], level))[0].append(said.level_name(level))
    found += [_point("winner", ", ".join(names), level) for names, level in levels.values()]
    found += [_point("control", said.text(it, "name"), it) for it in said.items(manifest, "controls")]
    measured = [point for point in found if point is not None]
    return [Point("baseline", "baseline", "", 1.0, 1.0, 1.0, said.EQUAL_PSNR), *measured] if measured else []


def front(found: Sequence[Point]) -> list[Point]:
    """Return the trials that no other trial beats in both speed and PSNR, slowest first."""
    best, kept = -math.inf, []
    for point in sorted((it for it in found if it.kind == "trial"), key=lambda it: (-it.ratio, -it.psnr)):
        if point.psnr > best:
            kept.append(point)
            best = point.psnr
    return kept[::-1]


def draw(found: Sequence[Point], guides: Sequence[tuple[float, str]], width: int, height: int) -> Plot | None:
    """Lay points out on a log axis of speedup and an axis of PSNR; None where there is nothing to draw.

    Args:
        guides: heights in dB to be marked by a line, with their names; those outside the axis are left out.
    """
    if not found:
        return None
    start, end = math.log(min(it.lo for it in found) * 0.92), math.log(max(it.hi for it in found) * 1.12)
    drawn = [it.psnr for it in found if it.psnr < HIGHEST_PSNR]
    floor = 5 * math.floor((min(drawn, default=HIGHEST_PSNR - 20) - 2) / 5)
    ceiling = min(HIGHEST_PSNR, 5 * math.ceil((max(drawn, default=HIGHEST_PSNR) + 4) / 5))
    left, top, right, bottom = _LEFT, _TOP, width - _RIGHT, height - _BOTTOM

    def x_of(ratio: float) -> float:
        return round(left + (right - left) * (math.log(ratio) - start) / (end - start), 1)

    def y_of(psnr: float) -> float:
        return round(bottom - (bottom - top) * (min(max(psnr, floor), ceiling) - floor) / (ceiling - floor), 1)

    marks = tuple(Mark(it, x_of(it.ratio), y_of(it.psnr), x_of(it.lo), x_of(it.hi)) for it in found)
    heights = range(10 * math.ceil(floor / 10), int(ceiling), 10)
    y_ticks = [(y_of(psnr), str(psnr)) for psnr in heights if y_of(psnr) - top > _LINE]
    named = tuple((y_of(psnr), name) for psnr, name in guides if floor < psnr < ceiling)
    corners = [(x_of(it.ratio), y_of(it.psnr)) for it in front(found)]
    taken: list[Box] = [(left + 5, y - _LINE, left + 5 + _CHARACTER * len(name), y) for y, name in named]
    taken += [(x - 2, y - 2, x + 2, y + 2) for x, y in _along(corners)]
    return Plot(
        width,
        height,
        (left, top, right, bottom),
        tuple((x_of(ratio), f"{ratio:g}×") for ratio in _ratios(start, end)),
        (*y_ticks, (y_of(ceiling), f"≥{ceiling:g}")),
        named,
        marks,
        _labels(marks, taken, (left, top, right, bottom)),
        " ".join(f"{x},{y}" for x, y in corners),
    )


def _point(kind: str, name: str, data: JSON) -> Point | None:
    outcome = said.get(data, "outcome")
    ratio, psnr = said.number(outcome, "latency", "ratio"), said.number(outcome, "fidelity", "psnr_median")
    if ratio is None or psnr is None or not 0 < ratio < math.inf or psnr == -math.inf:
        return None
    lo, hi = (said.number(outcome, "latency", key) or ratio for key in ("lo", "hi"))
    tier = said.text(outcome, "tier")
    bounds = (lo, hi) if 0 < lo <= ratio <= hi < math.inf else (ratio, ratio)
    return Point(kind, name, tier if tier.isalpha() else "changed", ratio, *bounds, psnr)


def _ratios(start: float, end: float) -> list[float]:
    """Return round ratios between two logarithms, closer ones where the axis is short."""
    for series in _SERIES:
        ratios = [step * 10.0**power for power in range(-3, 6) for step in series]
        inside = [ratio for ratio in ratios if start <= math.log(ratio) <= end]
        if len(inside) >= 4:
            break
    return inside


def _along(corners: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return points along a line through corners, about five pixels apart."""
    found = []
    for (x, y), (to_x, to_y) in pairwise(corners):
        count = max(1, int(math.hypot(to_x - x, to_y - y) / 5))
        found += [(x + (to_x - x) * part / count, y + (to_y - y) * part / count) for part in range(count)]
    return found


def _labels(marks: Sequence[Mark], hidden: Sequence[Box], frame: Box) -> tuple[Label, ...]:
    """Place the names of all but trials, each where it hides least of what is drawn already."""
    taken = [*hidden, *((mark.x - 6, mark.y - 6, mark.x + 6, mark.y + 6) for mark in marks)]
    placed: list[Label] = []
    for mark in sorted((it for it in marks if it.point.kind != "trial"), key=lambda it: it.y):
        suffix = "" if mark.point.kind == "baseline" else f" {said.times(mark.point.ratio)}"
        name = mark.point.name if len(mark.point.name) <= 40 else f"{mark.point.name[:39]}…"
        sides = (("start", 12), ("end", -12), ("start", -30), ("end", 30))
        tries = [
            Label(name + suffix, mark.point.kind, anchor, mark.x + shift, mark.y + offset, mark.x, mark.y)
            for offset in _OFFSETS
            for anchor, shift in sides
        ]
        best = min(tries, key=lambda it: _cost(it, taken, frame) + 5 * _hidden(it.box, [one.box for one in placed]))
        placed.append(best)
    return tuple(placed)


def _cost(label: Label, taken: Sequence[Box], frame: Box) -> float:
    left, top, right, bottom = label.box
    outside = max(0.0, frame[0] - left) + max(0.0, right - frame[2])
    outside += max(0.0, frame[1] - 10 - top) + max(0.0, bottom - frame[3])
    away = abs(label.y - label.to_y) + abs(label.x - label.to_x)
    return 50 * outside + _hidden(label.box, taken) + away


def _hidden(box: Box, taken: Sequence[Box]) -> float:
    """Return the area of a box that others cover."""
    left, top, right, bottom = box
    return sum(
        (min(right, other[2]) - max(left, other[0])) * (min(bottom, other[3]) - max(top, other[1]))
        for other in taken
        if other[0] < right and other[2] > left and other[1] < bottom and other[3] > top
    )
