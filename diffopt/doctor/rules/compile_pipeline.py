"""DIFF021: the whole pipeline is given to `torch.compile`."""

from __future__ import annotations

import libcst as cst

from diffopt.doctor import rule
from diffopt.doctor.compiled import is_compile

DENOISERS = ("unet", "transformer", "prior")


class CompilePipeline(rule.Rule):
    """Find `torch.compile(pipe)`."""

    id = "DIFF021"
    severity = "error"
    why = (
        "A pipeline is not a module: its call is a Python program with a progress bar, a scheduler and several models, "
        "which breaks the graph at every turn. What is worth compiling is the model that runs at every step."
    )
    evidence = (rule.docs("optimization/fp16#torchcompile"),)
    fix = "Compile the denoiser: `pipe.unet = torch.compile(pipe.unet)`."
    VALID = [
        """
        import torch
        from diffusers import StableDiffusionPipeline
        pipe = StableDiffusionPipeline.from_pretrained("model")
        pipe.unet = torch.compile(pipe.unet)
        """,
    ]
    INVALID = [
        rule.Invalid(
            """
            import torch
            from diffusers import StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("model")
            pipe = torch.compile(pipe, mode="reduce-overhead")
            """,
            expected_replacement="""
            import torch
            from diffusers import StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("model")
            pipe.unet = torch.compile(pipe.unet, mode="reduce-overhead")
            """,
        ),
    ]

    def check(self, facts: rule.Facts) -> None:
        for call in facts.script.all(cst.Call):
            if not is_compile(facts, call) or not call.args or call.args[0].star:
                continue
            model = call.args[0].value
            site = facts.site(model)
            if site is None:
                continue
            kind = facts.kind(site)
            part = next((name for name in DENOISERS if kind is not None and name in kind.components), None)
            advice = f"compile its `{part}`" if part else "compile its `unet` or `transformer`"
            message = f"`torch.compile` does not compile a pipeline: {advice}"
            line, statement = facts.statement(call), facts.script.parents.get(call)
            same = isinstance(statement, cst.Assign) and len(statement.targets) == 1
            same = same and facts.script.code(statement.targets[0].target) == facts.script.code(model)  # type: ignore
            if part is None or line is None or not same or not isinstance(statement, cst.Assign):
                self.flag(call, message)
                continue
            whole = cst.Attribute(model, cst.Name(part))
            new = call.with_changes(args=[call.args[0].with_changes(value=whole), *call.args[1:]])
            target = statement.targets[0].with_changes(target=whole)
            self.flag(statement, message, statement.with_changes(targets=[target], value=new), at=call)
