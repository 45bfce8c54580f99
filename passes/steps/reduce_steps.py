"""Sample in fewer steps with a higher-order solver."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self, get_args

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.dialect import components, loops, scheduler_of, stages, steps_of
from diffopt.passes.base import DiffusionPass, Example, Family, Refusal, Tier
from diffopt.passes.steps.solvers import Solver, Spacing, is_flow, refuse_solver, use_solver

LEAST_HEUN = 5
"""Of a model whose noise level falls from some 15 or 60 times the signal's to none; a flow's falls from 1.

On demo:shapes Heun comes to 4, 16 and 39 dB at 2, 3 and 5 steps, Euler to 34, 38 and 41 with half the calls."""


@dataclass(frozen=True)
class ReduceSteps(DiffusionPass):
    """Sample in fewer steps with a higher-order solver.

    What it does: replaces the scheduler, keeping its noise schedule, prediction type and shift, and shortens the
    loops. `spacing` says where the timesteps of a model that predicts noise or velocity lie; flows have their own.
    When it helps: always in time; in fidelity as far as the solver follows the same probability-flow trajectory. Heun
    asks the denoiser twice a step, and takes the mean of two slopes over the noise level: where the first of few steps lets most of
    the noise go at once, that mean overshoots.
    Refuses when: no fewer steps are asked for than there are, or too few for Heun, a cache schedule, the timesteps, or the steps that
    reuse the unconditional half are fixed already, or the solver does not integrate what the model predicts, or
    would not keep how its schedule is shifted.
    What it costs: tier traded; at more than about half of the steps often near.
    References: DDIM arXiv 2010.02502; DPM-Solver++ arXiv 2211.01095; DEIS arXiv 2204.13902; UniPC arXiv 2302.04867;
    Heun arXiv 2206.00364;
    flow matching arXiv 2210.02747, 2403.03206; timestep spacing arXiv 2305.08891.
    """

    name = "reduce-steps"
    family = Family.STEPS
    tier = Tier.TRADED
    examples = (
        Example("reduce-steps{steps=12}", expect="diffusion.denoise @scheduler steps 0 to 12 from"),
        Example("reduce-steps{steps=60}", refusal="no fewer than the 50 there are"),
        Example("cache-features{interval=2},reduce-steps", refusal="the cache schedule is fixed for 50 steps"),
        Example("reduce-steps{solver=unipc}", expect="flow_shift = 3.000000e+00", model="flow"),
        Example("reduce-steps{solver=ddim}", refusal="ddim does not integrate flows", model="flow"),
        Example("reduce-steps{steps=2 solver=heun}", refusal="heun wants 5 steps"),
        Example("reduce-steps{steps=2 solver=heun}", expect="FlowMatchHeunDiscreteScheduler", model="flow"),
    )

    steps: int = 20
    solver: Solver = "dpmsolver++"
    spacing: Spacing = "trailing"

    def check_options(self) -> None:
        self.require(1 <= self.steps <= 1000, "steps", "from 1 to 1000")

    @classmethod
    def space(cls, module: ModuleOp) -> Iterator[Self]:
        counts = [n for n in (2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25) if n < steps_of(module)]
        plain = is_flow(scheduler_of(module))
        for count in counts:
            for solver in get_args(Solver):
                if solver == "heun" and count > 10:
                    continue
                fixed = plain or solver in ("own", "euler", "heun")
                for spacing in ("trailing",) if fixed else get_args(Spacing):
                    if not refuse_solver(module, solver):
                        yield cls(steps=count, solver=solver, spacing=spacing)

    def refuse(self, module: ModuleOp) -> Refusal | None:
        scheduler, steps = scheduler_of(module), steps_of(module)
        if why := _not_reduced(module):
            return Refusal(why, "diffusion.denoise", "wrong-kind")
        if why := refuse_solver(module, self.solver):
            return Refusal(why, "@scheduler", "wrong-kind")
        if self.solver == "heun" and self.steps < LEAST_HEUN and not is_flow(scheduler):
            why = f"over fewer its mean of two slopes overshoots: {self.steps} are asked for"
            return Refusal(f"heun wants {LEAST_HEUN} steps where noise is predicted, {why}", "@scheduler", "range")
        if self.steps >= steps:
            return Refusal(f"{self.steps} steps are no fewer than the {steps} there are", "@scheduler")
        if any(predict.full is not None for loop in loops(module) for predict in loop.predicts):
            return Refusal(
                f"the cache schedule is fixed for {steps} steps: reduce steps first", "@scheduler", "steps-before-cache"
            )
        if any(loop.guide.fresh is not None for loop in loops(module) if loop.guide is not None):
            return Refusal(
                f"the unconditional half is reused at steps fixed for {steps}: reduce steps first",
                "@scheduler",
                "steps-before-cache",
            )
        if any(transform.transform.data == "fit_timesteps" for transform in scheduler.transforms):
            return Refusal(f"the {steps} timesteps are fixed one by one", "@scheduler", "one-of")
        if len(loops(module)) > self.steps:
            return Refusal(f"{len(loops(module))} loops do not fit into {self.steps} steps", "@scheduler")
        return None

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        before, found = steps_of(op), loops(op)
        start = 0
        for index, loop in enumerate(found):
            left = len(found) - index - 1
            stop = min(max(round(loop.bounds[1] * self.steps / before), start + 1), self.steps - left)
            loop.set_bounds(start, stop if left else self.steps)
            start = stop
        scheduler = scheduler_of(op)
        scheduler.set_value("steps", self.steps)
        scheduler.set_value("origin", self.name)
        if self.solver != "own":
            use_solver(op, self.solver, self.spacing)


def _not_reduced(module: ModuleOp) -> str:
    """Return why the steps of a module cannot be reduced; empty where they can."""
    if len(stages(module)) > 1:
        return "the call has several stages, each with steps of its own"
    if any(loop.side is not None for loop in loops(module)):
        return "the loops divide the schedule between experts at a timestep: fewer steps are not divided yet"
    if loops(module)[0].bounds[0] != 0:
        return f"the call starts at step {loops(module)[0].bounds[0]}: fewer steps from an image are not made yet"
    if steps_of(module) != scheduler_of(module).values.get("steps"):
        return "the call ends before its schedule does: fewer steps up to there are not made yet"
    pipeline = components(module)["pipeline"].values
    names, given = pipeline.get("call"), pipeline.get("arguments")
    if isinstance(names, dict) and names.get("steps") != "num_inference_steps":
        return "the call takes its number of steps by another name than num_inference_steps"
    fixed = [key for key in ("timesteps", "sigmas") if isinstance(given, dict) and given.get(key)]
    return f"the call gives its {fixed[0]} one by one" if fixed else ""
