"""DIFF007: methods of a torch module called on a pipeline."""

from __future__ import annotations

import libcst as cst

from diffopt.doctor import rule
from diffopt.doctor.edits import without_statement

SAME = {
    "half": "torch.float16",
    "float": "torch.float32",
    "bfloat16": "torch.bfloat16",
    "cuda": '"cuda"',
    "cpu": '"cpu"',
}
NOTHING = ("eval", "requires_grad_", "train")


class PipelineIsNotAModule(rule.Rule):
    """Find methods of `torch.nn.Module` called on a pipeline, such as `pipe.half()` and `pipe.eval()`."""

    id = "DIFF007"
    severity = "error"
    why = (
        "A pipeline holds modules but is none: these calls raise `AttributeError`. Its models are in evaluation mode "
        "already, and `to` moves and casts them."
    )
    evidence = (rule.source("pipelines/pipeline_utils.py"), rule.docs("using-diffusers/loading"))
    fix = 'Write `.to(torch.float16)` or `.to("cuda")`; leave `.eval()` out.'
    VALID = [
        """
        from diffusers import StableDiffusionPipeline
        pipe = StableDiffusionPipeline.from_pretrained("model").to("cuda")
        pipe.unet.eval()
        """,
    ]
    INVALID = [
        rule.Invalid(
            """
            from diffusers import StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("model").cpu()
            """,
            expected_replacement="""
            from diffusers import StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("model").to("cpu")
            """,
        ),
        rule.Invalid(
            """
            import torch
            from diffusers import StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("model")
            # only for inference
            pipe.eval()
            pipe.float()
            """,
            expected_replacement="""
            import torch
            from diffusers import StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("model")
            # only for inference
            pipe.to(torch.float32)
            """,
        ),
    ]

    def check(self, facts: rule.Facts) -> None:
        for use in facts.uses:
            name = use.path[-1]
            if len(use.path) > 1 or name not in (*SAME, *NOTHING) or facts.kind(use.site) is None:
                continue
            if not use.site.pipeline_class.startswith("diffusers."):
                continue
            line = facts.statement(use.call)
            if name in NOTHING:
                alone = line is not None and facts.is_statement(use.call)
                gone = without_statement(line, facts.script.parents.get(line)) if line is not None and alone else None
                message = f"a pipeline has no `{name}()`, and needs none: leave it out"
                if line is not None and gone is not None:
                    self.flag(line, message, gone, at=use.call)
                else:
                    self.flag(use.call, message)
                continue
            fits = not use.call.args and (facts.imports("torch") or "torch" not in SAME[name])
            func = cst.ensure_type(use.call.func, cst.Attribute).with_changes(attr=cst.Name("to"))
            new = use.call.with_changes(func=func, args=[cst.Arg(cst.parse_expression(SAME[name]))]) if fits else None
            self.flag(use.call, f"a pipeline has no `{name}()`: write `to({SAME[name]})`", new)
