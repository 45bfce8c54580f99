"""The solvers of the sampler: which scheduler each is, and which predictions it may integrate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from xdsl.dialects.builtin import ModuleOp

from diffopt.ir.description import JSON
from diffopt.ir.dialect import ComponentOp, components, scheduler_of
from diffopt.ir.step_plan import plan_arguments
from diffopt.passes.refusal import Refusal

Solver = Literal["own", "ddim", "euler", "heun", "dpmsolver++", "deis", "unipc"]
Spacing = Literal["leading", "trailing", "linspace"]


@dataclass(frozen=True)
class SolverKind:
    """A solver as a scheduler of diffusers.

    Args:
        noise: class for models that predict noise, the image or the velocity; empty where there is none.
        flow: class for flow-matching models.
        overrides: configuration that it is given.
        shifts: whether the flow class can move its schedule with the size of the image.
    """

    noise: str = ""
    flow: str = ""
    overrides: tuple[tuple[str, JSON], ...] = ()
    shifts: bool = True


SOLVERS: dict[str, SolverKind] = {
    "ddim": SolverKind("DDIMScheduler"),
    "euler": SolverKind("EulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler"),
    "heun": SolverKind("HeunDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", shifts=False),
    "dpmsolver++": SolverKind(
        "DPMSolverMultistepScheduler",
        "DPMSolverMultistepScheduler",
        (("algorithm_type", "dpmsolver++"), ("solver_order", 2)),
    ),
    "deis": SolverKind("DEISMultistepScheduler", overrides=(("solver_order", 2),)),
    "unipc": SolverKind("UniPCMultistepScheduler", "UniPCMultistepScheduler", (("solver_order", 2),)),
}
"""All take the noise schedule of the pipeline's own scheduler.

`own` stands for the scheduler that the pipeline has, spacing included: the plain "fewer steps"."""

FLOW_CLASSES = tuple({kind.flow for kind in SOLVERS.values() if kind.flow.startswith("FlowMatch")})


def asks_twice(module: ModuleOp) -> Refusal | None:
    """Refuse a scheduler that asks the denoiser twice a step: no step plan counts that yet."""
    if "Heun" not in scheduler_of(module).class_name.data:
        return None
    return Refusal("the Heun solver asks the denoiser twice a step: no plan of steps counts that yet", "@scheduler")


def is_flow(scheduler: ComponentOp) -> bool:
    """Tell whether a scheduler integrates a flow-matching model."""
    config = scheduler.config
    return "FlowMatch" in scheduler.class_name.data or bool(config.get("use_flow_sigmas"))


def refuse_solver(module: ModuleOp, solver: Solver) -> str:
    """Return why a solver cannot take the place of the pipeline's scheduler; empty where it can."""
    scheduler, kind = scheduler_of(module), SOLVERS.get(solver)
    if kind is None:
        return ""
    if solver == "heun" and plan_arguments(module):
        return "heun asks the denoiser twice a step, and a plan says already what each step asks"
    if not is_flow(scheduler):
        return "" if kind.noise else f"{solver} is for flow-matching models alone"
    name = scheduler.class_name.data
    if not kind.flow:
        return f"{name} is a flow-matching scheduler, and {solver} does not integrate flows"
    if name.rpartition(".")[2] not in (*FLOW_CLASSES, "DPMSolverMultistepScheduler", "UniPCMultistepScheduler"):
        return f"{name} has a schedule of its own that {solver} would not keep"
    config = scheduler.config
    if config.get("shift_terminal") and solver != "euler":
        return f"the schedule is stretched to end at {config['shift_terminal']}, which {solver} does not keep"
    moves = bool(config.get("use_dynamic_shifting"))
    if moves and not kind.shifts:
        return f"the schedule moves with the size of the image, which {solver} does not do"
    flux = "Flux" in components(module)["pipeline"].class_name.data
    if flux and not moves and solver != "euler":
        return f"the pipeline moves every schedule with the size of the image, which {solver} was not told to"
    return ""


def use_solver(module: ModuleOp, solver: Solver, spacing: Spacing) -> None:
    """Replace the scheduler by a solver, keeping its noise schedule, its kind of prediction and its shift."""
    scheduler, kind = scheduler_of(module), SOLVERS[solver]
    overrides = dict(kind.overrides)
    if not is_flow(scheduler):
        name, overrides = kind.noise, {**overrides, "timestep_spacing": spacing}
    else:
        name = kind.flow
        if not name.startswith("FlowMatch"):
            shift = scheduler.config.get("shift", scheduler.config.get("flow_shift", 1.0))
            overrides |= {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
            # A schedule that moves with the image computes its shift at each call.
            overrides |= {} if scheduler.config.get("use_dynamic_shifting") else {"flow_shift": shift}
    scheduler.properties["class_name"] = type(scheduler.class_name)(f"diffusers.{name}")
    scheduler.set_value("overrides", overrides)
