"""demo:shapes-pixart, a PixArt transformer with a T5 encoder, on the scenes of demo:shapes."""

from __future__ import annotations

from pathlib import Path

from diffopt.bench.models.shapes import Shapes

SHAPES_PIXART = Shapes(
    "demo:shapes-pixart",
    Path(__file__).resolve().parent / "weights",
    arguments={"use_resolution_binning": False},
)
"""The built-in model demo:shapes-pixart; the pipeline's size bins begin at 256 pixels."""
