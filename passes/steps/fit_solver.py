"""Step by constants that were fitted to the model's own trajectories."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import loops, only_plain, scheduler_of, unrolled
from diffopt.ir.errors import DiffoptError
from diffopt.ir.unroll import REACH
from diffopt.passes.base import DiffusionPass, Example, Family, Refusal, Tier
from diffopt.passes.steps.fit_timesteps import FALLING, FitTimesteps, falling
from diffopt.passes.steps.solvers import is_flow
from diffopt.passes.structure.schedule_weights import schedule_of
from diffopt.passes.structure.unroll_steps import unroll_loop

Rows = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class FitSolver(DiffusionPass):
    """Step by constants that were fitted to the model's own trajectories.

    What it does: shortens the loops to as many steps as `timesteps` names and unrolls them; each step is a sum of latents and
    predictions, this step's and up to two earlier ones', by the weights of its row. `python -m diffopt.bench.fit solver MODEL
    --steps N` finds both: the weights of each step by least squares, so that it lands where the baseline's many steps do,
    and the timesteps by descent on where the last one lands. A few numbers a step, fitted on a few prompts: a solver, and no
    training of the model.
    When it helps: at two to eight steps, where the solvers of textbooks spend their order on models that are not smooth.
    Refuses when: no weights are named, the rows do not fit the timesteps, there are no fewer steps than before, the call is
    more than a plain loop, or the solver takes no timesteps of one's own.
    What it costs: tier traded, as fewer steps do; the fitting runs, once for a model and its guidance.
    References: AutoDiffusion arXiv 2309.10438 and DPM-Solver-v3 arXiv 2310.13268 fit solvers to models too; DEIS arXiv 2204.13902.
    """

    name = "fit-solver"
    family = Family.STEPS
    tier = Tier.TRADED
    on_request = True
    examples = (
        Example(
            'fit-solver{timesteps="999,400" weights="0.9,-0.1;0.8,-0.2,0.1,0.05"}',
            expect="weights [8.000000e-01, -2.000000e-01, 1.000000e-01, 5.000000e-02]",
        ),
        Example("fit-solver", refusal="no weights are fitted"),
        Example('fit-solver{timesteps="999,400" weights="1,1"}', refusal="rows of weights and timesteps: 1 and 2"),
        Example('fit-solver{timesteps="999" weights="1,1,1,1"}', refusal="step 0 has a weight for each latent and"),
    )
    one_of = "sampler"
    after = ("family:guidance", "family:caching")
    excludes = MappingProxyType({"capture-step": "captured steps hold the schedule as a table already"})

    timesteps: str = "999"
    weights: str = ""

    def check_options(self) -> None:
        self.require(falling(self.timesteps), "timesteps", FALLING)
        self.require(_rows(self.weights) is not None, "weights", "numbers parted by commas, rows by semicolons")

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        yield from ()

    def refuse(self, module: ModuleOp) -> Refusal | None:
        rows, count = _rows(self.weights) or (), self.timesteps.count(",") + 1
        if not rows:
            return Refusal("no weights are fitted: python -m diffopt.bench.fit solver MODEL", "@scheduler", "range")
        if len(rows) != count:
            return Refusal(f"rows of weights and timesteps: {len(rows)} and {count}", "@scheduler", "range")
        for index, row in enumerate(rows):
            if len(row) % 2 or not 0 < len(row) <= 2 * min(index + 1, REACH):
                what = f"each latent and each prediction up to it, {REACH} at most"
                return Refusal(f"step {index} has a weight for {what}", "@scheduler", "range")
        if unrolled(module):
            return Refusal("the steps are unrolled already", "diffusion.denoise", "one-of")
        if why := only_plain(module):
            return Refusal(f"{why}: only a plain loop is unrolled", "diffusion.denoise", "wrong-kind")
        return self._timesteps(module).refuse(module)

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        self._timesteps(op).apply(ctx, op)
        scheduler = scheduler_of(op)
        scheduler.set_value("origin", self.name)
        for transform in scheduler.transforms:
            if transform.transform.data == "fit_timesteps":
                transform.attributes["origin"] = type(transform.transform)(self.name)
        found = schedule_of(op)
        if isinstance(found, str):
            raise DiffoptError(found, where=self.name, hint="leave fit-solver out")
        for loop in loops(op):
            unroll_loop(loop, found[0], _rows(self.weights) or (), self.name)

    def _timesteps(self, module: ModuleOp) -> FitTimesteps:
        return FitTimesteps(self.timesteps, solver="euler" if is_flow(scheduler_of(module)) else "dpmsolver++")


def _rows(text: str) -> Rows | None:
    """Read rows of numbers; `None` if the text is anything else."""
    try:
        found = tuple(tuple(float(part) for part in row.split(",")) for row in text.split(";")) if text else ()
    except ValueError:
        return None
    return found if all(math.isfinite(number) for row in found for number in row) else None
