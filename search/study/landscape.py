"""A recorded landscape: programs of a real pipeline that were all measured once, so that searches can be replayed.

`python -m diffopt.search.study.record` makes one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from xdsl.dialects.builtin import ModuleOp

from diffopt.bench.outcome import Failed, Outcome
from diffopt.ir.errors import DiffoptError
from diffopt.ir.identity import parse_module
from diffopt.passes.base import Refusal
from diffopt.passes.pipeline import Trace
from diffopt.search.goals import measured, objectives
from diffopt.search.presets import RuleProposer
from diffopt.search.records import Candidate, Proposer, Trial
from diffopt.search.selection import Points, hypervolume
from diffopt.search.space import Legal, PassSpace, Refused, Steps
from diffopt.search.study.rows import outcome_of

VERSION = 1

GRID: tuple[tuple[str, ...], ...] = (
    (
        "",
        *(
            f'reduce-steps{{steps={steps} solver="{solver}" spacing="trailing"}}'
            for steps in (2, 3, 4, 5, 6, 8, 10, 15, 20)
            for solver in ("deis", "dpmsolver++", "ddim")
        ),
    ),
    ("", "cache-features{interval=2 branch=0}", "cache-features{interval=3 branch=0}"),
    ("", "guidance-window{stop=0.6}", "guidance-window{stop=0.8}"),
    (
        "",
        'export{backend="openvino" scope="pipeline" precision="bf16"}',
        'export{backend="openvino" scope="components" precision="f32"}',
        'export{backend="onnxruntime" scope="components" precision="f32"}',
    ),
)
"""Slots of a program in their order, each empty or one of some passes: their legal products are the landscape."""


def programs(module: ModuleOp) -> list[tuple[str, str]]:
    """Return trace and key of every distinct legal program of the grid but the baseline, in a fixed order."""
    space = PassSpace(module)
    found: dict[str, str] = {}
    baseline = space.check(())
    for chosen in product(*GRID):
        steps = Trace.parse(",".join(filter(None, chosen))).passes
        verdict = space.check(steps)
        if isinstance(verdict, Legal) and verdict != baseline:
            found.setdefault(verdict.key, str(Trace(steps)))
    return [(trace, key) for key, trace in found.items()]


class TableSpace(PassSpace):
    """The `Space` of the programs that were recorded; any order of passes that leads to one of them is legal."""

    def __init__(self, module: ModuleOp, keys: frozenset[str], vocabulary: Mapping[str, Steps]) -> None:
        super().__init__(module, memory=2000)  # one space serves every run of a study
        self._keys, self._vocabulary = keys, vocabulary

    @property
    def names(self) -> tuple[str, ...]:
        """See `Space`."""
        return tuple(self._vocabulary)

    def instances(self, name: str, before: Steps) -> Steps:
        """See `Space`."""
        return tuple(
            s
            for s in self._vocabulary.get(name, ())
            if not isinstance(super(TableSpace, self).check((*before, s)), Refused)
        )

    def check(self, steps: Steps) -> Legal | Refused:
        """See `Space`."""
        verdict = super().check(steps)
        if steps and isinstance(verdict, Legal) and verdict.key not in self._keys:
            return Refused(Refusal("not recorded", steps[-1].name, "landscape"), len(steps) - 1)
        return verdict


@dataclass(frozen=True)
class Landscape:
    """A `Problem` whose programs were all measured; `truth` is what was measured."""

    module: ModuleOp
    space: TableSpace
    vocabulary: Mapping[str, Steps]
    outcomes: Mapping[str, Outcome]

    @staticmethod
    def read(path: Path) -> Landscape:
        """Read a recorded landscape.

        Raises:
            DiffoptError: there is none, or it is of another version.
        """
        try:
            table = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            hint = "record one: python -m diffopt.search.study.record"
            raise DiffoptError("no recorded landscape", where=str(path), hint=hint) from error
        if table.get("version") != VERSION:
            raise DiffoptError(f"a landscape of version {table.get('version')}", where=str(path))
        module = parse_module(table["module"], str(path))
        vocabulary: dict[str, list[object]] = {}
        for slot in GRID:
            for text in filter(None, slot):
                step = Trace.parse(text).passes[0]
                vocabulary.setdefault(step.name, []).append(step)
        words: dict[str, Steps] = {name: tuple(steps) for name, steps in vocabulary.items()}  # type: ignore[arg-type]
        outcomes = {row["key"]: outcome_of(row) for row in table["rows"]}
        return Landscape(module, TableSpace(module, frozenset(outcomes), words), words, outcomes)

    def evaluate(self, candidate: Candidate) -> Outcome:
        """See `Problem`."""
        return self.outcomes.get(candidate.key, Failed("internal", "not recorded"))

    def truth(self, trial: Trial) -> Points:
        """See `Problem`."""
        outcome = measured(trial)
        if outcome is None:
            raise ValueError(f"{trial.candidate.trace} failed")
        return objectives(outcome)

    def reference(self) -> float:
        """See `Problem`."""
        trials = [Trial(Candidate(0, "", key, ""), outcome) for key, outcome in self.outcomes.items()]
        return hypervolume(np.array([self.truth(t) for t in trials if measured(t) is not None]))

    def seeds(self) -> Sequence[Proposer]:
        """See `Problem`."""
        return (RuleProposer(),)
