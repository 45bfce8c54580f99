"""DIFF018: methods that pipelines no longer have."""

from __future__ import annotations

import libcst as cst

from diffopt.doctor import rule
from diffopt.doctor.installed import ancestry, members

MOVED = ("slicing", "tiling")


class RemovedMethod(rule.Rule):
    """Find calls of methods that the installed diffusers does not define for a pipeline, such as `enable_vae_slicing`."""

    id = "DIFF018"
    severity = "error"
    why = (
        "The call raises `AttributeError`. What a pipeline's class and its bases define is read off the installed "
        "diffusers; the methods that switched slicing and tiling of the VAE are methods of the VAE now."
    )
    evidence = (rule.docs("optimization/memory#vae-slicing"), rule.source("pipelines/pipeline_utils.py"))
    fix = "Write `pipe.vae.enable_slicing()`; for other methods see the documentation of the pipeline."
    VALID = [
        """
        from diffusers import StableDiffusionPipeline
        pipe = StableDiffusionPipeline.from_pretrained("model")
        pipe.vae.enable_slicing()
        pipe.set_progress_bar_config(disable=True)
        """,
        """
        from diffusers import StableDiffusionPipeline
        class Mine(StableDiffusionPipeline):
            def sample(self):
                return self("a cat")
        image = Mine.from_pretrained("model").sample()
        """,
    ]
    INVALID = [
        rule.Invalid(
            """
            from diffusers import StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("model")
            pipe.enable_vae_slicing()
            images = pipe("a cat", num_images_per_prompt=2, num_inference_steps=2).images
            """,
            expected_replacement="""
            from diffusers import StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("model")
            pipe.vae.enable_slicing()
            images = pipe("a cat", num_images_per_prompt=2, num_inference_steps=2).images
            """,
        ),
    ]

    def check(self, facts: rule.Facts) -> None:
        for use in facts.uses:
            if len(use.path) != 1 or use.path[0].startswith("__"):
                continue
            name, kind = use.path[0], facts.kind(use.site)
            vae = name.removeprefix("enable_vae_").removeprefix("disable_vae_")
            moved = vae != name and vae in MOVED
            if kind is None and moved and facts.called(use.site.call).startswith("diffusers."):
                defined = members("DiffusionPipeline")
            elif kind is not None and any(node.name == "DiffusionPipeline" for node in ancestry(kind.name)):
                defined = members(kind.name)
            else:
                continue
            if name in defined or self._set_here(facts, name):
                continue
            if not moved:
                # what a module has is the matter of another rule
                if name not in ("half", "float", "bfloat16", "cuda", "cpu", "eval", "train", "requires_grad_"):
                    self.flag(use.call, f"`{kind.name if kind else 'the pipeline'}` has no `{name}` in this diffusers")
                continue
            method = name.replace("_vae_", "_")
            func = cst.Attribute(cst.Attribute(use.holder, cst.Name("vae")), cst.Name(method))
            message = f"pipelines have no `{name}` any more: write `vae.{method}()`"
            self.flag(use.call, message, use.call.with_changes(func=func))

    def _set_here(self, facts: rule.Facts, name: str) -> bool:
        """Say whether the script itself puts such a method somewhere."""
        code = facts.script.text
        return any(change.path[-1] == name for change in facts.changes) or f"def {name}" in code or f'"{name}"' in code
