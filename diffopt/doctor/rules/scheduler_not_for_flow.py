"""DIFF029: a scheduler of noise prediction on a flow-matching model."""

from __future__ import annotations

import libcst as cst

from diffopt.doctor import rule
from diffopt.doctor.installed import init_parameters, knows_flow

FLOW = "diffusers.FlowMatchEulerDiscreteScheduler"
SPACINGS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
"""Each takes the place of the flow sigmas, even where both are on."""

PLAIN = ("Flux", "StableDiffusion3")
"""Models whose own configuration is that of a flow scheduler, without `use_flow_sigmas`; Wan's, for one, has it."""


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
            if not init_parameters(scheduler):
                continue
            spaced = [name for name in SPACINGS if self._on(facts, made, name)]
            if "use_flow_sigmas" not in init_parameters(scheduler):
                wrong, advice = not knows_flow(scheduler), "keep the flow-matching scheduler"
            elif spaced:
                wrong, advice = True, f"leave `{spaced[0]}` out"
            else:
                wrong = kind.name.startswith(PLAIN) and facts.keyword(made, "use_flow_sigmas") is None
                advice = "add `use_flow_sigmas=True`"
            if wrong:
                message = f"`{kind.name}` is a flow-matching model, `{scheduler}` denoises as if it were not: {advice}"
                self.flag(made, message)

    def _on(self, facts: rule.Facts, call: cst.Call, name: str) -> bool:
        arg = facts.keyword(call, name)
        return arg is not None and facts.value(arg.value) is True
