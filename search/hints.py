"""Let hints from outside steer what the operators draw, without forbidding anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from diffopt.passes.base import DiffusionPass
from diffopt.passes.pipeline import Trace
from diffopt.search.space import Legal, Refused, Space, Steps

FAVOUR = 3
"""How many times an instance within the hinted ranges is drawn for once that one outside of them is."""

GRAIN = 2
"""Copies of a name in the lottery of passes at weight 1: weights are told apart in halves, and none is left out."""


@dataclass(frozen=True)
class Hint:
    """How much a pass is worth trying (1 is as any), and the useful range of its numeric options."""

    name: str
    weight: float = 1.0
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)


class HintedSpace:
    """A `Space` in which some passes and values are drawn more often; what is legal stays legal, and stays in reach.

    Args:
        hints: asked at every draw, since they may come while the search goes on.
    """

    def __init__(self, space: Space, hints: Callable[[], Sequence[Hint]]) -> None:
        self._space, self._hints = space, hints

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the passes, repeated by their weights: an operator that draws one draws by weight."""
        weights = {hint.name: hint.weight for hint in self._hints()}
        if not weights:
            return self._space.names
        return tuple(name for name in self._space.names for _ in range(max(1, round(GRAIN * weights.get(name, 1.0)))))

    def instances(self, name: str, before: Steps) -> Steps:
        """See `Space`; those within the hinted ranges come several times."""
        found = self._space.instances(name, before)
        ranges = next((hint.ranges for hint in self._hints() if hint.name == name), {})
        within = tuple(step for step in found if _within(step, ranges)) if ranges else ()
        return found + within * (FAVOUR - 1)

    def check(self, steps: Steps) -> Legal | Refused:
        """See `Space`."""
        return self._space.check(steps)

    def parse(self, text: str) -> Trace:
        """See `Space`."""
        return self._space.parse(text)


def _within(step: DiffusionPass, ranges: Mapping[str, tuple[float, float]]) -> bool:
    return all(low <= float(getattr(step, option)) <= high for option, (low, high) in ranges.items())
