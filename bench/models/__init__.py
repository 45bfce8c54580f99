"""Models that ship with diffopt, by name."""

from __future__ import annotations

from diffopt.bench.models.shapes import SHAPES, Shapes


def builtin(name: str) -> Shapes | None:
    """Return the built-in model of that name ("demo:shapes"), None when there is none."""
    return {SHAPES.name: SHAPES}.get(name)
