"""diffusers' own documented recipes: precision, memory format, compilation, caches, fewer steps with DPM++."""

from __future__ import annotations

from typing import Any

from diffopt.bench.peers.calling import Called, denoiser_name, plain, with_steps
from diffopt.bench.peers.peer import Peer

STEPS = (20, 10, 5, 3, 2)

PEER = Peer(
    name="diffusers 0.42.1",
    kind="packaged",
    source="https://huggingface.co/docs/diffusers (optimization: fp16, cache, speed-memory-optims; schedulers)",
    licence="Apache-2.0",
    arms={
        "as it is": {},
        "channels_last": {"channels_last": True},
        "bfloat16": {"dtype": "bfloat16"},
        "compile, channels_last": {"compiled": "whole", "channels_last": True},
        "compile_repeated_blocks": {"compiled": "blocks"},
        "compile, bfloat16, channels_last": {"compiled": "whole", "channels_last": True, "dtype": "bfloat16"},
        "FirstBlockCache 0.2": {"cache": "first-block"},
        "FasterCache": {"cache": "faster"},
        "PyramidAttentionBroadcast": {"cache": "pab"},
        **{f"DPM++, {steps} steps": {"steps": steps, "solver": "dpm++"} for steps in STEPS},
        **{
            f"DPM++, {steps} steps, compile, channels_last": {
                "steps": steps, "solver": "dpm++", "compiled": "whole", "channels_last": True
            }
            for steps in (10, 5, 3, 2)
        },
    },
    note="no UNet has diffusers' caches, and PixArt's transformer has none either",
)  # fmt: skip


def load(
    model: str,
    device: str,
    engines: Any,
    *,
    call: dict[str, Any],
    dtype: str = "float32",
    channels_last: bool = False,
    compiled: str = "",
    cache: str = "",
    steps: int = 0,
    solver: str = "",
) -> Any:
    """Return the pipeline as the documentation would have it."""
    import torch

    pipe = plain(model, dtype)
    name = denoiser_name(pipe)
    made = Called(pipe, with_steps(pipe, call, steps, solver, ""))
    if channels_last:
        getattr(pipe, name).to(memory_format=torch.channels_last)
        pipe.vae.to(memory_format=torch.channels_last)
    if cache:
        getattr(pipe, name).enable_cache(_cache(cache, pipe))
    if compiled == "blocks":
        getattr(pipe, name).compile_repeated_blocks(fullgraph=True)
    if compiled == "whole":
        setattr(pipe, name, torch.compile(getattr(pipe, name), fullgraph=True))
        pipe.vae.decode = torch.compile(pipe.vae.decode, fullgraph=True)
    return made


def _cache(kind: str, pipe: Any) -> Any:
    import diffusers

    if kind == "first-block":
        return diffusers.FirstBlockCacheConfig(threshold=0.2)
    if kind == "faster":
        return diffusers.FasterCacheConfig(
            spatial_attention_block_skip_range=2,
            spatial_attention_timestep_skip_range=(-1, 681),
            current_timestep_callback=lambda: pipe.current_timestep,
            attention_weight_callback=lambda _: 0.5,
            unconditional_batch_skip_range=5,
            unconditional_batch_timestep_skip_range=(-1, 781),
            tensor_format="BCHW",
        )
    return diffusers.PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=2,
        spatial_attention_timestep_skip_range=(100, 800),
        current_timestep_callback=lambda: pipe.current_timestep,
    )
