"""Read a manifest in which anything may be missing or of another type, and write its numbers as text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from statistics import median
from typing import TypeAlias

from diffopt.ir.description import JSON

NOTHING = "–"
"""Stands wherever a manifest says nothing."""

EQUAL_PSNR = 120.0
"""dB; what `diffopt.bench.fidelity` gives for equal images."""

Data: TypeAlias = "JSON | Mapping[str, JSON]"


def get(data: Data, *path: str) -> JSON:
    """Return the value at a path of keys, or None."""
    found: Data = data
    for key in path:
        if not isinstance(found, Mapping):
            return None
        found = found.get(key)
    return dict(found) if isinstance(found, Mapping) else found


def number(data: Data, *path: str) -> float | None:
    """Return the number at a path, or None; NaN is none."""
    found = get(data, *path)
    if isinstance(found, bool) or not isinstance(found, int | float) or math.isnan(found):
        return None
    return float(found)


def text(data: Data, *path: str) -> str:
    """Return the value at a path as text; empty for None."""
    found = get(data, *path)
    return "" if found is None else str(found)


def items(data: Data, *path: str) -> list[JSON]:
    """Return the list at a path, or an empty one."""
    found = get(data, *path)
    return list(found) if isinstance(found, list | tuple) else []


def count(data: Data, *path: str) -> str:
    """Return a whole number at a path as text."""
    found = number(data, *path)
    return NOTHING if found is None else f"{found:.0f}"


def flatten(data: Data, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the leaves of nested JSON as (dotted name, text); sizes in bytes get their unit."""
    if isinstance(data, Mapping):
        for key, value in data.items():
            yield from flatten(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(data, list | tuple):
        yield prefix, ", ".join(str(value) for value in data) or NOTHING
    elif data is not None:
        value = number({"value": data}, "value")
        if value is not None and prefix.endswith("_bytes"):
            yield prefix.removesuffix("_bytes"), size(value)
        else:
            yield prefix, str(data)


def call_s(outcome: Data, side: str) -> float | None:
    """Return the median seconds of a call: `side` is "candidate_s" or "baseline_s"."""
    times = [value for value in items(outcome, "latency", side) if isinstance(value, int | float)]
    return float(median(times)) if times else None


def milliseconds(outcome: Data, side: str, batch: float = 1) -> str:
    """Return the median milliseconds an image."""
    seconds_each = call_s(outcome, side)
    if seconds_each is None:
        return NOTHING
    value = 1000 * seconds_each / batch
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def times(ratio: float) -> str:
    """Return a speedup with three digits."""
    return f"{_digits(ratio)}×"


def speedup(outcome: Data) -> str:
    """Return the ratio of an outcome with its interval."""
    ratio, lo, hi = (number(outcome, "latency", key) for key in ("ratio", "lo", "hi"))
    if ratio is None:
        return NOTHING
    interval = "" if lo is None or hi is None else f" [{_digits(lo)}, {_digits(hi)}]"
    return f"{times(ratio)}{interval}"


def decibel(value: float | None) -> str:
    """Return a PSNR without its unit."""
    if value is None:
        return NOTHING
    return f"{value:.1f}" if value < EQUAL_PSNR else f"≥{EQUAL_PSNR:.0f}"


def share(value: float | None) -> str:
    """Return a share of 1 in percent."""
    return NOTHING if value is None else f"{100 * value:.1f} %"


def small(value: float | None) -> str:
    """Return a number of any size with three digits."""
    return NOTHING if value is None else f"{value:.3g}"


def seconds(value: float | None) -> str:
    """Return a duration."""
    if value is None or math.isinf(value):
        return NOTHING
    if value >= 120:
        return f"{value // 60:.0f} min {value % 60:.0f} s"
    return f"{value:.1f} s" if value >= 1 else f"{1000 * value:.0f} ms"


def size(value: float) -> str:
    """Return a number of bytes in MB or GB, powers of ten."""
    return f"{value / 1e9:.2f} GB" if value >= 1e9 else f"{value / 1e6:.0f} MB"


def failure(outcome: Data) -> str:
    """Return kind and message of a failed outcome in one line; empty where it did not fail."""
    if text(outcome, "status") != "failed":
        return ""
    lines = text(outcome, "message").strip().splitlines() or ["no message"]
    return f"{text(outcome, 'kind') or 'failed'}: {lines[0]}"


def batch(manifest: Data) -> float:
    """Return the images of one call."""
    return max(1.0, number(manifest, "workload", "batch") or 1.0)


def machine(manifest: Data) -> str:
    """Return the machine in a few words."""
    device, target = get(manifest, "device"), text(manifest, "target")
    name = text(device, "name") or text(device, "cpu") or "an unnamed machine"
    cores = f" ({count(device, 'cores')} cores)" if number(device, "cores") else ""
    return f"{name}{cores}{f', {target}' if target and target != 'cpu' else ''}"


def level_name(level: Data) -> str:
    """Return the name of a level as people write it."""
    return text(level, "level").replace(">=", "≥")


def plain(line: str) -> str:
    """Return text that a terminal prints and does not obey: control characters are written as escapes."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in line)


def _digits(value: float) -> str:
    if not math.isfinite(value):
        return str(value)
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"
