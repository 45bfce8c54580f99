"""DIFF028: a new scheduler forgets what the model was trained with."""

from __future__ import annotations

import libcst as cst

from diffopt.doctor import rule

LOOKS = frozenset(
    {
        "use_karras_sigmas",
        "use_exponential_sigmas",
        "use_beta_sigmas",
        "timestep_spacing",
        "algorithm_type",
        "solver_order",
        "solver_type",
        "euler_at_final",
        "final_sigmas_type",
        "lower_order_final",
    }
)
"""Settings that say how to sample; all others say what the model was trained with."""


class SchedulerConfigLost(rule.Rule):
    """Find a scheduler that is built without the configuration of the one it replaces."""

    id = "DIFF028"
    severity = "error"
    why = (
        "The configuration holds the noise schedule and what the model predicts. Defaults of another schedule give "
        "washed-out or noisy images, without an error."
    )
    evidence = (rule.docs("using-diffusers/schedulers"), rule.source("configuration_utils.py"))
    fix = "Write `DDIMScheduler.from_config(pipe.scheduler.config, ...)`."
    VALID = [
        """
        from diffusers import DDIMScheduler, StableDiffusionPipeline
        pipe = StableDiffusionPipeline.from_pretrained("model")
        pipe.scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
        """,
        """
        from diffusers import DDIMScheduler, StableDiffusionPipeline
        pipe = StableDiffusionPipeline.from_pretrained("model")
        pipe.scheduler = DDIMScheduler(**pipe.scheduler.config)
        """,
    ]
    INVALID = [
        rule.Invalid(
            """
            from diffusers import DDIMScheduler, StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("model")
            pipe.scheduler = DDIMScheduler(timestep_spacing="trailing")
            image = pipe("a cat", num_inference_steps=2).images[0]
            """,
            expected_replacement="""
            from diffusers import DDIMScheduler, StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("model")
            pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, timestep_spacing="trailing")
            image = pipe("a cat", num_inference_steps=2).images[0]
            """,
        ),
    ]

    def check(self, facts: rule.Facts) -> None:
        for change in facts.changes:
            made = change.value
            if change.path != ("scheduler",) or not isinstance(made, cst.Call) or not change.site.loader:
                continue
            name = facts.called(made)
            if not (name.startswith("diffusers.") and name.endswith("Scheduler")) or name.count("FlowMatch"):
                continue
            if not all(arg.keyword is not None and arg.keyword.value in LOOKS for arg in made.args):
                continue
            target = change.statement.targets[0].target
            first = cst.Arg(cst.Attribute(target, cst.Name("config")))
            if made.args:
                first = first.with_changes(comma=cst.Comma(whitespace_after=cst.SimpleWhitespace(" ")))
            func = cst.Attribute(made.func, cst.Name("from_config"))
            new = made.with_changes(func=func, args=[first, *made.args])
            single = len(change.statement.targets) == 1
            message = f"a bare `{name.rpartition('.')[2]}` forgets the noise schedule of the model: use `from_config`"
            self.flag(made, message, new if single else None)
