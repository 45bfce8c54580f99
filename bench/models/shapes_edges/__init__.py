"""demo:shapes-edges, demo:shapes steered by the edges of a picture through a ControlNet."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffopt.bench.models.shapes import Shapes


@dataclass(frozen=True)
class ShapesEdges(Shapes):
    """The model; beside a prompt it takes the edges of a picture of what the prompt says."""

    def inputs(self, prompts: Sequence[str]) -> dict[str, object]:
        """Return what a call is given for prompts: these, and the edges of a picture of each, white on black."""
        from PIL import Image

        from diffopt.backends.canny import as_condition, canny

        edges = as_condition(canny(self.pictures(prompts)))
        return {"prompt": list(prompts), "image": [Image.fromarray(picture) for picture in edges]}

    def pictures(self, prompts: Sequence[str]) -> Any:
        """Draw what each prompt says, uint8 [n, 64, 64, 3]; the same picture for the same prompt."""
        import numpy as np

        from diffopt.bench.models.shapes.captions import parse
        from diffopt.bench.models.shapes.drawing import draw

        drawn = [
            draw(parse(text).labels()[None], np.random.default_rng(random.Random(text).getrandbits(64)))[0]
            for text in prompts
        ]
        return np.rint(np.stack(drawn) * 255).astype(np.uint8)


SHAPES_EDGES = ShapesEdges("demo:shapes-edges", Path(__file__).resolve().parent / "weights")
"""The built-in model demo:shapes-edges."""
