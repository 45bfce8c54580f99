"""DIFF001: `torch_dtype=` where diffusers now says `dtype=`."""

from __future__ import annotations

import libcst as cst

from diffopt.doctor import rule
from diffopt.doctor.edits import renamed_keyword

LOADERS = ("from_pretrained", "from_pipe")


class TorchDtypeSpelling(rule.Rule):
    """Find `torch_dtype=` in calls that load a pipeline or a model of diffusers."""

    id = "DIFF001"
    severity = "warning"
    why = (
        "Pipelines warn of `torch_dtype` and version 1.0.0 takes it out; `dtype` is the documented argument of "
        "pipelines and models alike."
    )
    evidence = (rule.source("utils/deprecation_utils.py"), rule.docs("optimization/fp16"))
    fix = "Write `dtype=`; the value stays."
    VALID = [
        """
        import torch
        from diffusers import StableDiffusionPipeline
        pipe = StableDiffusionPipeline.from_pretrained("model", dtype=torch.float32)
        """,
        """
        import torch
        from transformers import CLIPTextModel
        model = CLIPTextModel.from_pretrained("model", torch_dtype=torch.float32)
        """,
    ]
    INVALID = [
        rule.Invalid(
            """
            import torch
            from diffusers import StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("model", torch_dtype=torch.float32)
            """,
            expected_replacement="""
            import torch
            from diffusers import StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("model", dtype=torch.float32)
            """,
        ),
    ]

    def check(self, facts: rule.Facts) -> None:
        for call in facts.script.all(cst.Call):
            arg = facts.keyword(call, "torch_dtype")
            if arg is None or facts.keyword(call, "dtype") is not None:
                continue
            name = facts.called(call)
            if name.startswith("diffusers.") and name.rpartition(".")[2] in LOADERS:
                says = "is deprecated" if "Pipeline" in name else "is the old spelling"
                self.flag(arg, f"`torch_dtype` {says}: write `dtype`", renamed_keyword(arg, "dtype"))
