"""DIFF033: models are run outside of a pipeline's call with gradients on."""

from __future__ import annotations

import libcst as cst

from diffopt.doctor import rule
from diffopt.doctor.installed import switches_gradients_off

OFF = ("torch.no_grad", "torch.inference_mode", "torch.autograd.no_grad", "torch.autograd.inference_mode")
MODELS = (
    ("vae", "decode"),
    ("vae", "encode"),
    ("unet",),
    ("transformer",),
    ("text_encoder",),
    ("text_encoder_2",),
    ("text_encoder_3",),
    ("encode_prompt",),
)
TRAINING = ("backward", "requires_grad_", "requires_grad", "enable_grad", "grad", "optimizer", "set_grad_enabled")


class MissingNoGrad(rule.Rule):
    """Find parts of a pipeline that are run by hand without `torch.no_grad()`."""

    id = "DIFF033"
    severity = "warning"
    why = (
        "A pipeline's call switches gradients off, its parts do not: every activation is kept for a backward pass that "
        "never comes, which costs several times the memory."
    )
    evidence = (rule.docs("api/pipelines/overview"), rule.docs("using-diffusers/write_own_pipeline"))
    fix = "Put `with torch.no_grad():` round it, or `@torch.no_grad()` on the function."
    VALID = [
        """
        import torch
        from diffusers import StableDiffusionPipeline
        pipe = StableDiffusionPipeline.from_pretrained("model")
        @torch.inference_mode()
        def decode(latents):
            return pipe.vae.decode(latents)
        """,
        """
        import torch
        from diffusers import StableDiffusionPipeline
        pipe = StableDiffusionPipeline.from_pretrained("model")
        loss = pipe.vae.encode(torch.zeros(1, 3, 64, 64)).latent_dist.mean.sum()
        loss.backward()
        """,
    ]
    INVALID = [
        rule.Invalid(
            """
            import torch
            from diffusers import StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("model")
            latents = pipe("a cat", num_inference_steps=2, output_type="latent").images
            # from latents to pixels
            image = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
            """,
            expected_replacement="""
            import torch
            from diffusers import StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("model")
            latents = pipe("a cat", num_inference_steps=2, output_type="latent").images
            # from latents to pixels
            with torch.no_grad():
                image = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
            """,
        ),
    ]

    def check(self, facts: rule.Facts) -> None:
        if any(facts.mentions(word) for word in TRAINING):
            return
        lines: set[cst.CSTNode] = set()
        for use in facts.uses:
            kind = facts.kind(use.site)
            if use.path not in MODELS or kind is None or self._off(facts, use.call):
                continue
            if use.path == ("encode_prompt",) and switches_gradients_off(kind.name, "encode_prompt"):
                continue
            line = facts.statement(use.call)
            message = f"gradients are on for `{'.'.join(use.path)}`: run it under `torch.no_grad()`"
            if line is None or line in lines or not facts.imports("torch"):
                if line is None or line not in lines:
                    self.flag(use.call, message)
                continue
            lines.add(line)
            inner = cst.IndentedBlock([line.with_changes(leading_lines=[])])
            item = cst.WithItem(cst.parse_expression("torch.no_grad()"))
            self.flag(line, message, cst.With([item], inner, leading_lines=line.leading_lines), at=use.call)

    def _off(self, facts: rule.Facts, node: cst.CSTNode) -> bool:
        """Say whether gradients are off where a node is run, or may be: by the function's decorator or a caller."""
        for ancestor in facts.script.ancestors(node):
            if isinstance(ancestor, cst.With):
                if any(self._switches(facts, item.item) for item in ancestor.items):
                    return True
            elif isinstance(ancestor, cst.FunctionDef | cst.Lambda):
                # who calls a function may have switched them off
                return True
        everywhere = facts.script.all(cst.Call)
        return any(
            facts.called(call) in ("torch.set_grad_enabled", "torch._C._set_grad_enabled") for call in everywhere
        )

    def _switches(self, facts: rule.Facts, node: cst.BaseExpression) -> bool:
        return not isinstance(node, cst.Call) or facts.called(node) in OFF or not facts.called(node)
