"""demo:shapes-xl, a UNet with two text encoders and size conditioning as in Stable Diffusion XL."""

from __future__ import annotations

from pathlib import Path

from diffopt.bench.models.shapes import Shapes

SHAPES_XL = Shapes("demo:shapes-xl", Path(__file__).resolve().parent / "weights")
"""The built-in model demo:shapes-xl."""
