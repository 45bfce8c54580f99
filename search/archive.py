"""Seeds from earlier runs: what was best on another pipeline is worth trying on this one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.errors import DiffoptError
from diffopt.passes.pipeline import Trace
from diffopt.search.goals import measured, objectives
from diffopt.search.records import Trial
from diffopt.search.selection import survivors
from diffopt.search.space import Space


@dataclass(frozen=True)
class ArchiveProposer:
    """Proposes the best traces of stored trials, by Pareto rank and the hypervolume they add.

    Figures of another pipeline are not taken over, only which programs to try: the engine checks that they are legal
    here, and measures them.

    Args:
        trials: of any runs; those of one pipeline after the other.
        space: reads traces back; None for the registered passes.
    """

    trials: tuple[Trial, ...]
    space: Space | None = None
    name: str = "archive"

    def propose(self, module: ModuleOp, history: Sequence[Trial], count: int) -> list[Trace]:
        """Return the best traces first; one whose passes or options there are no more is left out."""
        kept = [(trial, outcome) for trial in self.trials if (outcome := measured(trial)) is not None]
        if not kept:
            return []
        points = np.array([objectives(outcome) for _, outcome in kept])
        read = self.space.parse if self.space is not None else Trace.parse
        found: list[Trace] = []
        for index in survivors(points, np.zeros(len(points))):
            try:
                found.append(read(kept[int(index)][0].candidate.trace))
            except DiffoptError:
                continue
            if len(found) == count:
                break
        return found
