"""demo:shapes-v, a UNet as in Stable Diffusion 2.1: v-prediction to a schedule that ends in pure noise."""

from __future__ import annotations

from pathlib import Path

from diffopt.bench.models.shapes import Shapes

SHAPES_V = Shapes("demo:shapes-v", Path(__file__).resolve().parent / "weights")
"""The built-in model demo:shapes-v."""
