"""DIFF045: the VAE of SDXL decodes in float16 by hand."""

from __future__ import annotations

from diffopt.doctor import rule


class SdxlVaeInHalf(rule.Rule):
    """Find the VAE of an SDXL pipeline that is kept in float16 while it decodes."""

    id = "DIFF045"
    severity = "error"
    why = (
        "Activations of this VAE overflow float16: the image is black. The pipeline's own call casts it to float32 "
        "for that; a decode by hand, or a configuration that switches it off, does not."
    )
    evidence = (rule.docs("api/pipelines/stable_diffusion/sdxl_turbo"), rule.issue(4321))
    fix = (
        "Call `pipe.vae.to(torch.float32)` before decoding by hand, or load `madebyollin/sdxl-vae-fp16-fix` as `vae`, "
        "which needs no cast and is faster."
    )
    VALID = [
        """
        import torch
        from diffusers import AutoencoderKL, StableDiffusionXLPipeline
        vae = AutoencoderKL.from_pretrained("madebyollin/sdxl-vae-fp16-fix", dtype=torch.float16)
        pipe = StableDiffusionXLPipeline.from_pretrained("model", vae=vae, dtype=torch.float16)
        with torch.no_grad():
            image = pipe.vae.decode(pipe("a cat", output_type="latent").images).sample
        """,
        """
        import torch
        from diffusers import StableDiffusionXLPipeline
        pipe = StableDiffusionXLPipeline.from_pretrained("model", dtype=torch.float16)
        latents = pipe("a cat", output_type="latent").images
        pipe.vae.to(torch.float32)
        with torch.no_grad():
            image = pipe.vae.decode(latents.float() / pipe.vae.config.scaling_factor).sample
        """,
    ]
    INVALID = [
        rule.Invalid(
            """
            import torch
            from diffusers import StableDiffusionXLPipeline
            pipe = StableDiffusionXLPipeline.from_pretrained("model", dtype=torch.float16).to("cuda")
            latents = pipe("a cat", output_type="latent").images
            with torch.no_grad():
                image = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
            """
        ),
        rule.Invalid(
            """
            import torch
            from diffusers import StableDiffusionXLPipeline
            pipe = StableDiffusionXLPipeline.from_pretrained("model", dtype=torch.float16).to("cuda")
            pipe.vae.config.force_upcast = False
            """
        ),
    ]

    def check(self, facts: rule.Facts) -> None:
        for site in facts.sites:
            if not site.pipeline_class.startswith("diffusers.StableDiffusionXL") or facts.dtype(site) != "float16":
                continue
            if facts.keyword(site.call, "vae") or facts.mentions("fp16-fix") or facts.open(site.call):
                continue
            if any(change.site is site and change.path == ("vae",) for change in facts.changes):
                continue
            message = "the VAE of SDXL overflows in float16: cast it to float32, or load sdxl-vae-fp16-fix"
            cast = (
                facts.uses_of(site, "vae", "to")
                or facts.uses_of(site, "upcast_vae")
                or facts.uses_of(site, "vae", "float")
            )
            for use in facts.uses_of(site, "vae", "decode") if not cast else ():
                self.flag(use.call, message)
            for change in facts.changes:
                off = change.path == ("vae", "config", "force_upcast") and facts.value(change.value) is False
                if change.site is site and off:
                    self.flag(change.statement, message)
