"""Sample at timesteps chosen one by one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, Self

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import scheduler_of, steps_of
from diffopt.passes.base import DiffusionPass, Example, Family, Refusal, Tier
from diffopt.passes.steps.reduce_steps import ReduceSteps
from diffopt.passes.steps.solvers import is_flow, refuse_solver, use_solver

ALIGNED = (999, 850, 736, 645, 545, 455, 343, 233, 124, 24)
"""Ten timesteps found for Stable Diffusion 1.5 (Align Your Steps, arXiv 2404.14507)."""


@dataclass(frozen=True)
class FitTimesteps(DiffusionPass):
    """Sample at timesteps chosen one by one.

    What it does: shortens the loops to as many steps as `timesteps` names and lets the scheduler take these, for a
    flow in thousandths before its shift. `python -m diffopt.bench.fit timesteps MODEL --steps N` finds them for this
    model in one traced run, by the path of least error through its trajectory; the space holds published ones.
    When it helps: at few steps, where an even spacing spends them in the wrong places.
    Refuses when: there are no fewer steps than before, the solver takes no timesteps of one's own or does not
    integrate what the model predicts, or a cache schedule is fixed already.
    What it costs: tier traded, as fewer steps do.
    References: Align Your Steps arXiv 2404.14507; GITS arXiv 2405.11326.
    """

    name = "fit-timesteps"
    family = Family.STEPS
    tier = Tier.TRADED
    examples = (
        Example('fit-timesteps{timesteps="999,600,200"}', expect='"fit_timesteps" {timesteps = [999 : i64, 600 : i64'),
        Example("reduce-steps{steps=8},fit-timesteps", refusal="10 steps are no fewer than the 8 there are"),
        Example("cache-features,fit-timesteps", refusal="the cache schedule is fixed for 50 steps"),
        Example("fit-timesteps,fit-timesteps", refusal="10 steps are no fewer"),
    )
    one_of = "sampler"

    timesteps: str = ",".join(map(str, ALIGNED))
    solver: Literal["dpmsolver++", "euler"] = "dpmsolver++"

    def check_options(self) -> None:
        self.require(falling(self.timesteps), "timesteps", FALLING)

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        if is_flow(scheduler_of(module)):
            return
        for count in (4, 5, 6, 8, 10, 12, 15, 20):
            if count < steps_of(module):
                yield cls(timesteps=",".join(map(str, stretched(ALIGNED, count))))

    def refuse(self, module: ModuleOp) -> Refusal | None:
        chosen, scheduler = _whole_numbers(self.timesteps), scheduler_of(module)
        fewer = ReduceSteps(steps=len(chosen), solver=self.solver).refuse(module)
        if fewer is not None:
            return fewer
        if why := refuse_solver(module, self.solver):
            return Refusal(why, "@scheduler", "wrong-kind")
        if is_flow(scheduler) and self.solver != "euler":
            return Refusal("a flow takes timesteps of one's own with the euler solver only", "@scheduler", "wrong-kind")
        total = scheduler.config.get("num_train_timesteps", 1000)
        if isinstance(total, int) and chosen[0] > total - (not is_flow(scheduler)):
            return Refusal(f"there is no timestep {chosen[0]} among {total}", "@scheduler")
        return None

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        chosen = _whole_numbers(self.timesteps)
        ReduceSteps(steps=len(chosen), solver="own").apply(ctx, op)
        use_solver(op, self.solver, "trailing")
        scheduler = scheduler_of(op)
        scheduler.set_value("origin", self.name)
        scheduler.add_transform("fit_timesteps", {"timesteps": list(chosen)}, self.name)


def stretched(timesteps: tuple[int, ...], count: int) -> tuple[int, ...]:
    """Return `count` timesteps spread as these are, with the same ends."""
    last = len(timesteps) - 1
    found = []
    for index in range(count):
        place = index * last / (count - 1)
        low = min(int(place), last - 1)
        found.append(round(timesteps[low] + (place - low) * (timesteps[low + 1] - timesteps[low])))
    return tuple(found)


FALLING = "falling whole numbers from 1000 to 0, parted by commas"


def falling(text: str) -> bool:
    """Tell whether a text is timesteps: falling whole numbers from 1000 to 0, parted by commas."""
    chosen = _whole_numbers(text)
    falls = bool(chosen) and all(later < earlier for earlier, later in pairwise(chosen))
    return falls and chosen[-1] >= 0 and chosen[0] <= 1000


def _whole_numbers(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    return tuple(map(int, parts)) if all(part.isascii() and part.isdigit() and len(part) < 6 for part in parts) else ()
