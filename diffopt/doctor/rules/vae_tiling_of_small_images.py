"""DIFF017: the VAE decodes large images in tiles, and the images are small."""

from __future__ import annotations

import libcst as cst

from diffopt.doctor import rule
from diffopt.doctor.between import used_by_hand

SMALLEST = 512
"""Edge of a tile, in pixels, of the smallest models; a larger model has larger tiles."""


class VaeTilingOfSmallImages(rule.Rule):
    """Find VAE tiling where no image is larger than one tile."""

    id = "DIFF017"
    severity = "note"
    why = "Images up to the size of a tile (512 pixels and more) are decoded in one piece: the call changes nothing."
    evidence = (rule.docs("optimization/memory#vae-tiling"), rule.source("models/autoencoders/autoencoder_kl.py"))
    fix = "Leave the call out."
    VALID = [
        """
        from diffusers import StableDiffusionPipeline
        pipe = StableDiffusionPipeline.from_pretrained("stable-diffusion-v1-5/stable-diffusion-v1-5")
        pipe.vae.enable_tiling()
        image = pipe("a cat", height=1024, width=512).images[0]
        """,
        """
        from diffusers import StableDiffusionXLPipeline
        pipe = StableDiffusionXLPipeline.from_pretrained("stabilityai/stable-diffusion-xl-base-1.0")
        pipe.vae.enable_tiling()
        image = pipe("a cat").images[0]
        """,
    ]
    INVALID = [
        rule.Invalid(
            """
            from diffusers import StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("stable-diffusion-v1-5/stable-diffusion-v1-5")
            pipe.vae.enable_tiling()
            image = pipe("a cat", height=512, width=384).images[0]
            """,
            expected_replacement="""
            from diffusers import StableDiffusionPipeline
            pipe = StableDiffusionPipeline.from_pretrained("stable-diffusion-v1-5/stable-diffusion-v1-5")
            image = pipe("a cat", height=512, width=384).images[0]
            """,
        ),
    ]

    def check(self, facts: rule.Facts) -> None:
        for use in facts.uses:
            if use.path not in (("vae", "enable_tiling"), ("enable_vae_tiling",)) or use.call.args:
                continue
            kind, calls = facts.kind(use.site), facts.calls_of(use.site)
            vae = kind.components.get("vae", ()) if kind is not None else ()
            if vae != ("diffusers.AutoencoderKL",) or not calls or not facts.stays(use.site):
                continue
            if used_by_hand(facts, use.site, "vae"):
                continue
            if facts.keyword(use.site.call, "vae") is None and all(self._small(facts, call) for call in calls):
                message = "no image is larger than one tile, so that there is nothing to split: leave it out"
                self.flag_call(facts, use.call, message)

    def _small(self, facts: rule.Facts, call: cst.Call) -> bool:
        edges = [facts.value(facts.argument(call, name)) for name in ("height", "width")]
        return not facts.open(call) and all(isinstance(edge, int) and edge <= SMALLEST for edge in edges)
