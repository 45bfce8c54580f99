"""Features of the last full steps, and what they come to at a step between: the last ones, or a forecast."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffopt.backends.base import Tensors


class FeatureMemory:
    """What full steps of one request leave for the steps between.

    With `order` 0 that is the last features as they were. With more, they are carried on by a Taylor series in the
    step's index, whose derivatives are backward differences over full steps (TaylorSeer, arXiv 2503.06923). The
    coefficients depend on the schedule alone, so an engine of the whole loop holds them as constants.
    """

    def __init__(self, order: int = 0) -> None:
        self._order = order
        self._step = 0
        self._terms: list[Tensors] = []

    def clear(self) -> None:
        """Forget everything."""
        self._terms = []

    def batch(self) -> int:
        """Return the batch size of what is kept; 0 where nothing is."""
        return self._terms[0][0].shape[0] if self._terms else 0

    def keep(self, step: int, features: Tensors) -> None:
        """Take the features of a full step.

        Features of the conditional half alone replace that half; the other stays, for steps that need it again.
        """
        if self._terms and self.batch() == 2 * features[0].shape[0]:
            features = _joined(tuple(value.chunk(2)[0] for value in self._terms[0]), features)
        if self._terms and self.batch() != features[0].shape[0]:
            self.clear()
        gap, terms = step - self._step, [features]
        for before in self._terms[: self._order]:
            terms.append(tuple((new - old) / gap for new, old in zip(terms[-1], before, strict=True)))
        self._terms, self._step = terms, step

    def at(self, step: int, batch: int) -> Tensors | None:
        """Return the features for a step between, for both halves or the conditional one; `None` if none fit."""
        if self.batch() not in (batch, 2 * batch):
            return None
        terms = self._terms
        if self.batch() == 2 * batch:
            terms = [tuple(value.chunk(2)[1] for value in term) for term in terms]
        ahead, total = step - self._step, terms[0]
        for power, term in enumerate(terms[1:], 1):
            weight = ahead**power / math.factorial(power)
            total = tuple(value + change * weight for value, change in zip(total, term, strict=True))
        return total


def _joined(first: Tensors, second: Tensors) -> Tensors:
    import torch

    return tuple(torch.cat([one, other]) for one, other in zip(first, second, strict=True))
