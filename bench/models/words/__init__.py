"""demo:words, the hard built-in model: three or four things anywhere in their quarter, one of them a short word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from diffopt.bench.models.words.scorer import Scorer


@dataclass(frozen=True)
class Words:
    """The model, its baseline settings, its prompts and its scorer."""

    name: str = "demo:words"
    directory: Path = Path(__file__).resolve().parent / "weights"
    steps: int = 50
    guidance: float = 3.0
    height: int = 64
    width: int = 64
    arguments: Mapping[str, bool] = field(default_factory=dict)

    def prompts(self, split: Literal["calibration", "search", "heldout"], count: int, seed: int = 0) -> list[str]:
        """Return `count` prompts of different scenes; the scenes of two splits never overlap, nor with training."""
        import random

        from diffopt.bench.models.words.captions import caption
        from diffopt.bench.models.words.scenes import random_scenes

        if split not in ("calibration", "search", "heldout"):
            raise ValueError(f"split must be calibration, search or heldout, not {split!r}")
        rng = random.Random(f"{split} {seed}")
        chosen: dict[object, str] = {}
        while len(chosen) < count:
            (scene,) = random_scenes(1, rng, split)
            chosen.setdefault(scene, caption(scene, rng))
        return list(chosen.values())

    def inputs(self, prompts: Sequence[str]) -> dict[str, object]:
        """Return what a call is given for prompts: these."""
        return {"prompt": list(prompts)}

    def scorer(self) -> Scorer:
        """Load the network that reads scenes back from images."""
        from diffopt.bench.models.words.scorer import Scorer

        return Scorer.load()


WORDS = Words()
"""The built-in model demo:words."""
