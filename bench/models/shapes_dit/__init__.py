"""demo:shapes-dit, a class-conditional DiT: every scene of one object is a class."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from diffopt.bench.models.shapes import Shapes


@dataclass(frozen=True)
class ShapesDiT(Shapes):
    """The model; its prompts are names of classes, and training has seen all of them."""

    def inputs(self, prompts: Sequence[str]) -> dict[str, object]:
        """Return what a call is given for names of classes: their numbers."""
        from diffopt.bench.models.shapes_dit.classes import labels

        numbers = {name: number for number, name in labels().items()}
        return {"class_labels": [numbers[name] for name in prompts]}

    def prompts(self, split: Literal["calibration", "search", "heldout"], count: int, seed: int = 0) -> list[str]:
        """Return `count` names of classes; the classes of two splits never overlap, but all were trained on."""
        from diffopt.bench.models.shapes_dit.classes import CLASSES, phrase, scene_of_class

        if split not in ("calibration", "search", "heldout"):
            raise ValueError(f"split must be calibration, search or heldout, not {split!r}")
        wanted = {"calibration": (2, 3), "search": (3, 8), "heldout": (8, 20)}[split]
        mine = [n for n in range(CLASSES) if scene_of_class(n).bucket() in range(*wanted)]
        random.Random(f"{split} {seed}").shuffle(mine)
        return [phrase(mine[index % len(mine)]) for index in range(count)]


SHAPES_DIT = ShapesDiT("demo:shapes-dit", Path(__file__).resolve().parent / "weights")
"""The built-in model demo:shapes-dit."""
