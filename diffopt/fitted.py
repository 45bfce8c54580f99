"""Candidates whose solver was fitted to the model that is compiled: what `diffopt compile --fit-solver` adds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from diffopt.events import Listener, Stage, silence
from diffopt.ir.errors import DiffoptError
from diffopt.passes.base import Refusal
from diffopt.passes.pipeline import Trace, run
from diffopt.search.presets import with_engine
from diffopt.search.records import Trial

if TYPE_CHECKING:
    from xdsl.dialects.builtin import ModuleOp

    from diffopt.agents import Agent, AgentFor

MOST = 20
"""Steps beyond which a solver is not fitted here: there the textbooks' are good enough, and the fitting takes long."""
UNGUIDED = "guidance-window{stop=0}"
"""What the fewest steps are also fitted under: the weights then do part of what guidance did, at half the denoiser's batch."""
Fit = Callable[["ModuleOp", Sequence[str], Sequence[int], str], list[str]]
"""Of a module, prompts, numbers of steps and the passes to run under."""


def step_counts(text: str) -> tuple[int, ...]:
    """Read what `--fit-solver` is given.

    Raises:
        DiffoptError: it is not numbers of steps, parted by commas.
    """
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and 1 <= int(part) <= MOST for part in parts):
        raise DiffoptError(f"{text!r} is not numbers from 1 to {MOST}", where="--fit-solver", hint="give 2,3,5")
    return tuple(dict.fromkeys(map(int, parts)))


def with_fitted(
    agent: AgentFor, counts: Sequence[int], source: str, target: str, *, listen: Listener = silence
) -> AgentFor:
    """Return what makes the agent of a run, with solvers of these numbers of steps before what it proposes itself."""

    def make(folder: Path, module: ModuleOp) -> Agent:
        made = agent(folder, module)
        return replace(made, proposers=[FittedProposer(tuple(counts), source, target, listen=listen), *made.proposers])

    return make


@dataclass(frozen=True)
class FittedProposer:
    """Fits a solver for each number of steps, in torch and before anything is measured, and proposes it with an engine.

    source: names the built-in model whose calibration prompts are used; of other sources, two prompts of no special kind.
    """

    counts: tuple[int, ...]
    source: str
    target: str
    name: str = "fitted"
    fit: Fit | None = None
    listen: Listener = silence

    def propose(self, module: ModuleOp, history: Sequence[Trial], count: int) -> list[Trace]:
        """Return a trace for each number of steps, the most first: it is the nearest to the baseline.

        Last comes one of the fewest steps without guidance, where there is guidance to leave out.
        """
        from diffopt.bench.fit import prompts_for

        steps = ", ".join(map(str, sorted(self.counts)))
        self.listen(Stage(f"fitting solvers to the model, of {steps} steps"))
        prompts, fit = prompts_for(self.source, 8), self.fit or _quietly
        made = fit(module, prompts, sorted(self.counts, reverse=True), "")
        if not isinstance(run(Trace.parse(UNGUIDED), module), Refusal):
            made += fit(module, prompts, [min(self.counts)], UNGUIDED)
        return [with_engine(trace, module, self.target) for trace in made]


def _quietly(module: ModuleOp, prompts: Sequence[str], counts: Sequence[int], under: str) -> list[str]:
    from diffopt.bench.fit import fit_solvers
    from diffopt.commands import quiet_libraries

    with quiet_libraries():
        return fit_solvers(module, prompts, counts, under=under)
