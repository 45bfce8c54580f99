"""demo:shapes-flow, a flow-matching MMDiT in the layout of Stable Diffusion 3, on the scenes of demo:shapes."""

from __future__ import annotations

from pathlib import Path

from diffopt.bench.models.shapes import Shapes

SHAPES_FLOW = Shapes("demo:shapes-flow", Path(__file__).resolve().parent / "weights")
"""The built-in model demo:shapes-flow."""
