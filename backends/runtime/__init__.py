"""What an emitted pipeline calls: each function changes the live pipeline it is given and returns it.

Importing this is cheap: torch and the engines are imported by the functions that need them.
"""

from diffopt.backends.runtime.cache_dit import cache_dit
from diffopt.backends.runtime.calibrate import calibrate
from diffopt.backends.runtime.call_defaults import call_defaults
from diffopt.backends.runtime.compile_component import compile_component
from diffopt.backends.runtime.constant_embeddings import constant_embeddings
from diffopt.backends.runtime.context_parallel import context_parallel
from diffopt.backends.runtime.distill_lora import distill_lora
from diffopt.backends.runtime.drop_safety_checker import drop_safety_checker
from diffopt.backends.runtime.export import export
from diffopt.backends.runtime.export_pipeline import export_pipeline
from diffopt.backends.runtime.fit_timesteps import fit_timesteps
from diffopt.backends.runtime.fold_negative_prompt import fold_negative_prompt
from diffopt.backends.runtime.fuse_lora import fuse_lora
from diffopt.backends.runtime.fuse_pipeline import fuse_pipeline
from diffopt.backends.runtime.half_precision import half_precision
from diffopt.backends.runtime.hoist_cross_attention import hoist_cross_attention
from diffopt.backends.runtime.merge_tokens import merge_tokens
from diffopt.backends.runtime.native_cache import native_cache
from diffopt.backends.runtime.offload_groups import offload_groups
from diffopt.backends.runtime.open_cache_context import open_cache_context
from diffopt.backends.runtime.quantize import quantize
from diffopt.backends.runtime.reuse_prompt_embeddings import reuse_prompt_embeddings
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
    "fuse_lora",
    "fuse_pipeline",
    "half_precision",
    "hoist_cross_attention",
    "merge_tokens",
    "native_cache",
    "offload_groups",
    "open_cache_context",
    "quantize",
    "reuse_prompt_embeddings",
    "tile_vae",
    "tiny_vae",
    "trim_padding",
    "unload_encoder",
    "unroll_steps",
    "witnesses",
]
