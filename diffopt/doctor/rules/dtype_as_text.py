"""DIFF002: a dtype given as text, which loads float32."""

from __future__ import annotations

import libcst as cst

from diffopt.doctor import rule

TYPES = {
    "float16": "float16",
    "fp16": "float16",
    "half": "float16",
    "torch.float16": "float16",
    "bfloat16": "bfloat16",
    "bf16": "bfloat16",
    "torch.bfloat16": "bfloat16",
    "float32": "float32",
    "fp32": "float32",
    "float": "float32",
    "torch.float32": "float32",
}


class DtypeAsText(rule.Rule):
    """Find a dtype that is given as text, such as `dtype="float16"`."""

    id = "DIFF002"
    severity = "error"
    why = (
        "Pipelines and models of diffusers take a `torch.dtype`. Text is not refused: a warning is logged and "
        "everything is loaded in float32, which needs twice the memory and time that was asked for."
    )
    evidence = (rule.source("pipelines/pipeline_utils.py"), rule.source("models/modeling_utils.py"))
    fix = "Write `torch.float16`."
    VALID = [
        """
        import torch
        from diffusers import StableDiffusionPipeline
        pipe = StableDiffusionPipeline.from_pretrained("model", dtype=torch.float32)
        """,
        """
        from transformers import AutoModel
        model = AutoModel.from_pretrained("model", dtype="auto")
        """,
    ]
    INVALID = [
        rule.Invalid(
            """
            import torch
            from diffusers import StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("model", dtype="bfloat16")
            """,
            expected_replacement="""
            import torch
            from diffusers import StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("model", dtype=torch.bfloat16)
            """,
        ),
        rule.Invalid(
            """
            from diffusers import UNet2DConditionModel
            unet = UNet2DConditionModel.from_pretrained("model", subfolder="unet", torch_dtype="auto")
            """,
        ),
    ]

    def check(self, facts: rule.Facts) -> None:
        for call in facts.script.all(cst.Call):
            name = facts.called(call)
            if not (name.startswith("diffusers.") and name.rpartition(".")[2] == "from_pretrained"):
                continue
            arg = facts.keyword(call, "dtype") or facts.keyword(call, "torch_dtype")
            value = facts.value(arg.value) if arg is not None else None
            if arg is None or not isinstance(value, str):
                continue
            meant = TYPES.get(value)
            new = cst.parse_expression(f"torch.{meant}") if meant and facts.imports("torch") else None
            advice = f"write `torch.{meant}`" if meant else "give a `torch.dtype`"
            message = f"text is not a dtype: {value!r} is ignored and float32 is loaded; {advice}"
            self.flag(arg.value, message, new if isinstance(arg.value, cst.SimpleString) else None)
