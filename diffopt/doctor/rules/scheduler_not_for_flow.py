"""DIFF029: a scheduler of noise prediction on a flow-matching model."""

from __future__ import annotations

import libcst as cst

from diffopt.doctor import rule
from diffopt.doctor.installed import init_parameters

FLOW = "diffusers.FlowMatchEulerDiscreteScheduler"


class SchedulerNotForFlow(rule.Rule):
    """Find a scheduler without flow sigmas on a pipeline whose model is trained by flow matching."""

    id = "DIFF029"
    severity = "error"
    why = (
        "Flow-matching models predict a velocity along a straight path. A scheduler that does not know this steps along "
        "another path: the call raises, or the image stays noise. Schedulers that can do both have `use_flow_sigmas`, "
        "which the configuration of a flow scheduler does not switch on."
    )
    evidence = (rule.source("schedulers/scheduling_dpmsolver_multistep.py"), rule.docs("using-diffusers/schedulers"))
    fix = 'Keep the scheduler, or add `use_flow_sigmas=True` and `prediction_type="flow_prediction"` where it has them.'
    VALID = [
        """
        from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
        pipe = StableDiffusionPipeline.from_pretrained("model")
        pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config, use_karras_sigmas=True)
        """,
        """
        from diffusers import FlowMatchHeunDiscreteScheduler, FluxPipeline
        pipe = FluxPipeline.from_pretrained("model")
        pipe.scheduler = FlowMatchHeunDiscreteScheduler.from_config(pipe.scheduler.config)
        """,
    ]
    INVALID = [
        rule.Invalid(
            """
            from diffusers import DPMSolverMultistepScheduler, FluxPipeline
            pipe = FluxPipeline.from_pretrained("model")
            pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config, use_karras_sigmas=True)
            """
        ),
        rule.Invalid(
            """
            from diffusers import EulerDiscreteScheduler, StableDiffusion3Pipeline
            pipe = StableDiffusion3Pipeline.from_pretrained("model")
            pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config)
            """
        ),
    ]

    def check(self, facts: rule.Facts) -> None:
        for change in facts.changes:
            kind, made = facts.kind(change.site), change.value
            if change.path != ("scheduler",) or kind is None or not isinstance(made, cst.Call):
                continue
            if kind.components.get("scheduler") != (FLOW,):
                continue
            name = facts.called(made)
            if not (name.startswith("diffusers.") and name.endswith("Scheduler.from_config")) or facts.open(made):
                continue
            scheduler = name.split(".")[-2]
            if scheduler.startswith("FlowMatch") or not init_parameters(scheduler):
                continue
            given = {arg.keyword.value for arg in made.args if arg.keyword is not None}
            knows = "use_flow_sigmas" in init_parameters(scheduler)
            advice = "add `use_flow_sigmas=True`" if knows else "keep the flow-matching scheduler"
            if "use_flow_sigmas" not in given:
                message = (
                    f"`{kind.name}` is a flow-matching model and `{scheduler}` denoises as if it were not: {advice}"
                )
                self.flag(made, message)
