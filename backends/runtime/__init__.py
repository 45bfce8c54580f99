"""What an emitted pipeline calls: each function changes the live pipeline it is given and returns it.

Importing this is cheap: torch and the engines are imported by the functions that need them.
"""

from diffopt.backends.runtime.cache_dit import cache_dit
from diffopt.backends.runtime.calibrate import calibrate
from diffopt.backends.runtime.call_defaults import call_defaults
from diffopt.backends.runtime.capture_step import capture_step
from diffopt.backends.runtime.compile_component import compile_component
from diffopt.backends.runtime.constant_embeddings import constant_embeddings
from diffopt.backends.runtime.context_parallel import context_parallel
from diffopt.backends.runtime.distill_lora import distill_lora
from diffopt.backends.runtime.drop_safety_checker import drop_safety_checker
from diffopt.backends.runtime.export import export
from diffopt.backends.runtime.export_pipeline import export_pipeline
from diffopt.backends.runtime.fit_timesteps import fit_timesteps
from diffopt.backends.runtime.fold_negative_prompt import fold_negative_prompt
from diffopt.backends.runtime.freeze_cross_attention import freeze_cross_attention
from diffopt.backends.runtime.freeze_prompt import freeze_prompt
from diffopt.backends.runtime.fuse_geglu import fuse_geglu
from diffopt.backends.runtime.fuse_group_norm import fuse_group_norm
from diffopt.backends.runtime.fuse_lora import fuse_lora
from diffopt.backends.runtime.fuse_modulation import fuse_modulation
from diffopt.backends.runtime.fuse_pipeline import fuse_pipeline
from diffopt.backends.runtime.fuse_qk_norm import fuse_qk_norm
from diffopt.backends.runtime.half_precision import half_precision
from diffopt.backends.runtime.hoist_cross_attention import hoist_cross_attention
from diffopt.backends.runtime.merge_tokens import merge_tokens
from diffopt.backends.runtime.native_cache import native_cache
from diffopt.backends.runtime.offload_groups import offload_groups
from diffopt.backends.runtime.open_cache_context import open_cache_context
from diffopt.backends.runtime.quantize import quantize
from diffopt.backends.runtime.quantize_fp8 import quantize_fp8
from diffopt.backends.runtime.reuse_prompt_embeddings import reuse_prompt_embeddings
from diffopt.backends.runtime.seeded_pipeline import seeded_pipeline
from diffopt.backends.runtime.step_plan import follow_step_plan
from diffopt.backends.runtime.tile_vae import tile_vae
from diffopt.backends.runtime.tiny_vae import tiny_vae
from diffopt.backends.runtime.trim_padding import trim_padding
from diffopt.backends.runtime.unload_encoder import unload_encoder
from diffopt.backends.runtime.unroll_steps import unroll_steps
from diffopt.backends.runtime.witnesses import witnesses

__all__ = [
    "cache_dit",
    "calibrate",
    "call_defaults",
    "capture_step",
    "compile_component",
    "constant_embeddings",
    "context_parallel",
    "distill_lora",
    "drop_safety_checker",
    "export",
    "export_pipeline",
    "fit_timesteps",
    "fold_negative_prompt",
    "follow_step_plan",
    "freeze_cross_attention",
    "freeze_prompt",
    "fuse_geglu",
    "fuse_group_norm",
    "fuse_lora",
    "fuse_modulation",
    "fuse_pipeline",
    "fuse_qk_norm",
    "half_precision",
    "hoist_cross_attention",
    "merge_tokens",
    "native_cache",
    "offload_groups",
    "open_cache_context",
    "quantize",
    "quantize_fp8",
    "reuse_prompt_embeddings",
    "seeded_pipeline",
    "tile_vae",
    "tiny_vae",
    "trim_padding",
    "unload_encoder",
    "unroll_steps",
    "witnesses",
]
