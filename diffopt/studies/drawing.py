"""Small line and bar charts as SVG text, readable in light and dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 360, 200, 44, 30, 22
COLOURS = {
    "exact": "#2b6cd4", "near": "#1a8f6f", "traded": "#c9761a", "changed": "#8a8f96",
    "pairs": "#2b6cd4", "racing": "#1a8f6f", "blocks": "#c0392b",
}  # fmt: skip
STYLE = (
    "<style>text{font:11px system-ui,sans-serif;fill:#57606a}.axis{stroke:#8a8f96;stroke-width:1}"
    ".rule{stroke:#8a8f96;stroke-dasharray:3 3}.band{fill:#8a8f96;opacity:.18}.title{font-weight:600}</style>"
)


def dots(
    title: str, labels: Sequence[str], values: Sequence[float], kinds: Sequence[str], rules: Mapping[str, float]
) -> str:
    """Return a chart of points over labels, each in the colour of its kind.

    Args:
        rules: horizontal lines by what they are called.
    """
    top = 1.08 * max([*values, *rules.values()])
    parts = [_frame(title, top)]
    for name, height in rules.items():
        y = _y(height, top)
        parts.append(f'<line class="rule" x1="{LEFT}" x2="{WIDTH - 8}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{WIDTH - 8}" y="{y - 3:.1f}" text-anchor="end">{escape(name)}</text>')
    places = [_x(index, len(values)) for index in range(len(values))]
    points = " ".join(f"{x:.1f},{_y(value, top):.1f}" for x, value in zip(places, values, strict=True))
    parts.append(f'<polyline points="{points}" fill="none" stroke="#8a8f96"/>')
    for x, value, kind, label in zip(places, values, kinds, labels, strict=True):
        parts.append(f'<circle cx="{x:.1f}" cy="{_y(value, top):.1f}" r="4.5" fill="{COLOURS[kind]}"/>')
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 12}" text-anchor="middle">{escape(label)}</text>')
    return _whole(parts)


def bars(title: str, groups: Mapping[str, Mapping[str, float]], *, top: float, band: tuple[float, float] | None) -> str:
    """Return groups of bars, one colour a series; `band` is shaded across."""
    parts = [_frame(title, top)]
    if band is not None:
        y, height = _y(band[1], top), _y(band[0], top) - _y(band[1], top)
        parts.append(f'<rect class="band" x="{LEFT}" y="{y:.1f}" width="{WIDTH - LEFT - 8}" height="{height:.1f}"/>')
    for index, (label, series) in enumerate(groups.items()):
        middle, wide = _x(index, len(groups)), 0.7 * (WIDTH - LEFT - 8) / len(groups) / max(1, len(series))
        for place, (name, value) in enumerate(series.items()):
            x, y = middle + (place - len(series) / 2) * wide, _y(value, top)
            parts.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{wide - 1:.1f}" height="{HEIGHT - BOTTOM - y:.1f}"'
                f' fill="{COLOURS[name]}"><title>{escape(name)} {value:.3g}</title></rect>'
            )
        parts.append(f'<text x="{middle:.1f}" y="{HEIGHT - 12}" text-anchor="middle">{escape(label)}</text>')
    return _whole(parts)


def _frame(title: str, top: float) -> str:
    base, ticks = HEIGHT - BOTTOM, (0, top / 2, top)
    lines = [f'<text class="title" x="{LEFT}" y="13">{escape(title)}</text>']
    lines += [f'<text x="{LEFT - 5}" y="{_y(t, top) + 4:.1f}" text-anchor="end">{t:.3g}</text>' for t in ticks]
    lines.append(f'<path class="axis" d="M{LEFT} {TOP}V{base}H{WIDTH - 8}" fill="none"/>')
    return "".join(lines)


def _x(index: int, count: int) -> float:
    return LEFT + (index + 0.5) * (WIDTH - LEFT - 8) / count


def _y(value: float, top: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * max(0.0, min(value / top, 1.0))


def _whole(parts: Sequence[str]) -> str:
    size = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{STYLE}{"".join(parts)}</svg>\n'
