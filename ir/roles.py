"""What the components of a pipeline are for, told by the names that diffusers gives them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from diffopt.ir.description import DENOISERS, JSON, OTHER_DENOISERS, PipelineDescription
from diffopt.ir.pipeline_classes import pipeline_class
from diffopt.ir.pipeline_sources import pipelines_root

ENCODERS = re.compile(
    r"(prior_|clip_)?(text_encoder(_\d)?|image_encoder|bert|qformer|condition_encoder|vision_language_encoder"
    r"|notes_encoder|continuous_encoder|image_embedder|siglip)$"
)
PRIORS = (("prior_prior", "prior_scheduler"), ("prior", "prior_scheduler"), ("prior", "scheduler"))
"""Denoisers of a first stage that makes an embedding, with the scheduler each follows."""

CONTROLS = ("controlnet", "adapter", "transformer_control")
DECODERS = ("vae", "vqvae", "movq", "vqgan", "vae_decoder", "decoder", "vocoder", "melgan", "mel", "shap_e_renderer")
GUIDANCE = ("guidance_scale", "true_cfg_scale", "decoder_guidance_scale", "prior_guidance_scale")
"""Names of the call's argument for the guidance scale; the first that a class has counts."""

SCHEDULERS = ("scheduler", "decoder_scheduler", "bb_ca_scheduler", "local_latents_scheduler", "super_res_scheduler")
IMAGE_ENCODERS = ("vae", "vae_encoder", "movq", "vqvae")
EXTRA_GUIDANCE = ("pag_scale", "image_guidance_scale", "stg_scale", "modality_scale", "img_guidance_scale", "sag_scale")
"""Arguments of the call that add a term to guidance; nothing where the default is 0."""

BATCHED = re.compile(
    r"(?:torch\.cat|np\.concatenate)\(\s*\[\s*(?:latents|latent_model_input|x|image_latents|sample|audio)\w*\s*\]\s*\*"
    r"|latents\w*(?:\.to\([^)]*\)|_typed)?\.repeat\(2\b|torch\.cat\(\[(latents\w*), \1\]"
)
"""How a pipeline's source doubles the latents, for guidance in one batch."""


@dataclass(frozen=True)
class Guidance:
    """How a pipeline class guides.

    Args:
        scale: the call's argument that is classifier-free guidance's scale; empty for none.
        distilled: the argument that the denoiser takes as an input; empty for none.
        in_turn: two calls of the denoiser rather than one of twice the batch.
        extra: arguments that add further terms.
    """

    scale: str
    distilled: str
    in_turn: bool
    extra: tuple[str, ...] = ()


def guidance_of_class(class_name: str, denoiser: Mapping[str, JSON]) -> Guidance:
    """Read how a pipeline class guides off its source; a class that is not known is guided in one batch."""
    known = pipeline_class(class_name)
    if known is None:
        return Guidance("guidance_scale", "", False)
    source = source_of(known.file)
    names = [n for n in GUIDANCE if n in known.call]
    # Where a class has both, `true_cfg_scale` guides, and `guidance_scale` is an input of a distilled denoiser, if any.
    takes = denoiser.get("guidance_embeds", "true_cfg_scale" in names or "guidance_embeds" in source)
    latent_consistency = denoiser.get("time_cond_proj_dim") is not None or "LatentConsistency" in known.name
    distilled = "guidance_scale" if "guidance_scale" in names and (latent_consistency or takes is True) else ""
    scale = "true_cfg_scale" if "true_cfg_scale" in names else next((n for n in names if n != distilled), "")
    if scale == "prior_guidance_scale" and len(names) == 1 and "prior" not in known.components:
        scale = ""
    extra = tuple(n for n in EXTRA_GUIDANCE if n in known.call)
    return Guidance(scale, distilled, BATCHED.search(source) is None, extra)


@cache
def source_of(file: str) -> str:
    """Return the text of a file of diffusers."""
    root = pipelines_root()
    return (root.parent / file).read_text(encoding="utf-8") if root else ""


def denoiser_names(description: PipelineDescription) -> tuple[str, ...]:
    """Return the components asked in the last stage: one, or two experts."""
    held = [part.name for part in description.components]
    if "transformer" in held and "transformer_2" in held:
        return ("transformer", "transformer_2")
    for name in (*DENOISERS, *OTHER_DENOISERS):
        if name in held:
            return (name,)
    return ()


def medium(description: PipelineDescription) -> str:
    """Return what is denoised: an image, video, audio or other data."""
    known = pipeline_class(description.pipeline_class)
    call = known.call if known else {}
    names = {part.name for part in description.components}
    classes = " ".join(part.class_name for part in description.components)
    if {"num_frames", "video_length", "num_videos_per_prompt", "segment_frame_length"} & set(call):
        return "video"
    if "frames" in call or "Video" in description.pipeline_class or "VideoToVideo" in description.pipeline_class:
        return "video"
    if {"audio_length_in_s", "audio_duration", "audio_duration_s", "audio_end_in_s"} & set(call):
        return "audio"
    if {"mel", "melgan"} & names or "Audio" in description.pipeline_class or "DanceDiffusion" in classes:
        return "audio"
    if "Audio" in classes and "vae" in names and "Video" not in classes:
        return "audio"
    if any(word in description.pipeline_class for word in ("ShapE", "Protein", "Gemma", "LLaDA")):
        return "data"
    return "image"
