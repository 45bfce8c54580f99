"""DIFF016: the VAE decodes batches in slices, and there is one image."""

from __future__ import annotations

import libcst as cst

from diffopt.doctor import rule
from diffopt.doctor.between import used_by_hand


class VaeSlicingOfOneImage(rule.Rule):
    """Find VAE slicing where every call makes one image."""

    id = "DIFF016"
    severity = "note"
    why = "Slicing decodes a batch image by image. Where each call makes one image, there is nothing to slice."
    evidence = (rule.docs("optimization/memory#vae-slicing"),)
    fix = "Leave the call out."
    VALID = [
        """
        from diffusers import StableDiffusionPipeline
        pipe = StableDiffusionPipeline.from_pretrained("model")
        pipe.vae.enable_slicing()
        images = pipe("a cat", num_images_per_prompt=4).images
        """,
        """
        from diffusers import StableDiffusionPipeline
        def generate(prompt):
            pipe = StableDiffusionPipeline.from_pretrained("model")
            pipe.vae.enable_slicing()
            return pipe(prompt).images
        """,
        """
        from diffusers import StableDiffusionPipeline
        pipe = StableDiffusionPipeline.from_pretrained("model")
        pipe.vae.enable_slicing()
        latents = pipe("a cat", output_type="latent").images
        images = pipe.vae.decode(latents.repeat(8, 1, 1, 1))
        """,
    ]
    INVALID = [
        rule.Invalid(
            """
            from diffusers import StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("model")
            pipe.vae.enable_slicing()
            image = pipe("a cat", num_inference_steps=2).images[0]
            """,
            expected_replacement="""
            from diffusers import StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("model")
            image = pipe("a cat", num_inference_steps=2).images[0]
            """,
        ),
    ]

    def check(self, facts: rule.Facts) -> None:
        for use in facts.uses:
            if use.path not in (("vae", "enable_slicing"), ("enable_vae_slicing",)):
                continue
            calls = facts.calls_of(use.site)
            kind = facts.kind(use.site)
            if kind is None or not calls or not facts.stays(use.site) or {"num_frames", "video"} & set(kind.call):
                continue
            if not all(self._makes_one(facts, call) for call in calls):
                continue
            if used_by_hand(facts, use.site, "vae"):
                continue
            message = "every call makes one image, so that there is nothing to slice: leave it out"
            self.flag_call(facts, use.call, message)

    def _makes_one(self, facts: rule.Facts, call: cst.Call) -> bool:
        if facts.open(call) or facts.keyword(call, "prompt_embeds") or facts.keyword(call, "latents"):
            return False
        count = facts.keyword(call, "num_images_per_prompt")
        prompt = facts.value(facts.argument(call, "prompt", 0))
        return isinstance(prompt, str) and (count is None or facts.value(count.value) == 1)
