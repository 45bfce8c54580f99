"""What passes of steps, guidance and caching emit is run on small pipelines, and says what it changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from xdsl.dialects.builtin import ModuleOp

from diffopt.backends.runtime import witnesses
from diffopt.ir.emit_pipeline import emit_pipeline
from diffopt.ir.emit_statements import statements
from diffopt.passes.pipeline import Trace, applied

UNET = {
    "cache-features{interval=2 schedule=early}": {"cache-features": 3},
    "cache-features{interval=2 warm=2},forecast-features": {"forecast-features": 2},
    "cache-adaptive{threshold=0.4}": {"cache-features": 4},
    "gate-cross-attention{gate=0.5}": {"gate-cross-attention": 3},
    "reuse-unconditional": {"reuse-unconditional": 3},
    "reuse-unconditional{every=3 reuse=prediction},guidance-window{stop=0.7}": {
        "guidance-window": 2,
        "reuse-unconditional": 2,
    },
    "split-guidance-batch,guidance-window{stop=0.5}": {"guidance-window": 3, "split-guidance-batch": 3},
    "guidance-off": {},
    "reduce-steps{steps=5},cache-features{interval=2}": {"cache-features": 2},
    "reduce-steps{steps=5 solver=heun}": {},
    "reduce-steps{steps=5 solver=euler},gate-cross-attention,guidance-window{stop=0.4}": {
        "gate-cross-attention": 3,
        "guidance-window": 3,
    },
    'fit-timesteps{timesteps="999,700,400,100"},cache-features{interval=2}': {"fit-timesteps": 1, "cache-features": 2},
}


@pytest.fixture(scope="module")
def small_module(tiny_directory: Path) -> ModuleOp:
    """The tiny UNet pipeline at 6 steps and guidance 3."""
    from diffopt.ir.description import build_module
    from diffopt.ir.source_directory import describe_directory

    return build_module(describe_directory(tiny_directory, steps=6, guidance=3.0, name="tiny"))


@pytest.mark.slow
@pytest.mark.parametrize("trace", UNET)
def test_emitted_code_runs_and_tells_what_it_changed(small_module: ModuleOp, tmp_path: Path, trace: str) -> None:
    code = emit_pipeline(applied(Trace.parse(trace), small_module))
    names: dict[str, Any] = {"__file__": str(tmp_path / "pipeline.py"), "__name__": "emitted"}
    exec(compile(code, "pipeline.py", "exec"), names)  # noqa: S102 - the emitted code is what is tested
    pipe = names["load"]()
    pipe.set_progress_bar_config(disable=True)
    images = [
        pipe("a red circle", generator=torch.Generator().manual_seed(0), output_type="pt").images for _ in range(2)
    ]
    assert torch.isfinite(images[0]).all()
    assert torch.equal(*images), "a request leaves something for the next"
    assert {witness.transform: witness.count // 2 for witness in witnesses(pipe)} == UNET[trace]


TRANSFORMER = {
    "cache-blocks{interval=2}": {"cache-blocks": 2},
    "cache-blocks{interval=2 first=1 last=1 warm=2},forecast-features": {"forecast-features": 2},
    "cache-adaptive{threshold=0.4}": {"cache-blocks": 4},
    "reuse-unconditional": {"reuse-unconditional": 3},
    "split-guidance-batch,cache-blocks": {"cache-blocks": 6, "split-guidance-batch": 6},
    "guidance-window{stop=0.5},cache-blocks{interval=2}": {"cache-blocks": 2, "guidance-window": 3},
    "reduce-steps{steps=5 solver=unipc},cache-blocks": {"cache-blocks": 2},
    "reduce-steps{steps=5 solver=dpmsolver++}": {},
    "reduce-steps{steps=5 solver=heun}": {},
    'fit-timesteps{timesteps="1000,700,200" solver=euler}': {"fit-timesteps": 1},
}


@pytest.mark.slow
@pytest.mark.parametrize("trace", TRANSFORMER)
def test_emitted_statements_run_on_a_transformer(transformer_module: ModuleOp, trace: str) -> None:
    shorter = applied(Trace.parse("reduce-steps{steps=6 solver=own}"), transformer_module)
    module = applied(Trace.parse(trace), shorter)
    pipe, call = _flow_pipeline()
    names: dict[str, Any] = {"pipe": pipe}
    for statement in statements(module):
        for library, name in statement.imports:
            exec(f"from {library} import {name}", names)  # noqa: S102
        exec(statement.line(pipe="pipe", engines="None"), names)  # noqa: S102
    steps = len(range(*[loop.bounds for loop in _loops(module)][-1])) + _loops(module)[-1].bounds[0]
    settings = {"num_inference_steps": steps, "guidance_scale": 4.0, "height": 16, "width": 16}
    found = [
        pipe(**call, **settings, output_type="latent", generator=torch.Generator().manual_seed(0)).images
        for _ in range(2)
    ]
    assert torch.isfinite(found[0]).all()
    assert torch.equal(*found), "a request leaves something for the next"
    assert {witness.transform: witness.count // 2 for witness in witnesses(pipe)} == TRANSFORMER[trace]


def _loops(module: ModuleOp) -> Any:
    from diffopt.ir.dialect import loops

    return loops(module)


def _flow_pipeline() -> tuple[Any, dict[str, torch.Tensor]]:
    """Make a tiny Stable Diffusion 3 without text encoders, and the embeddings its call takes instead."""
    from diffusers import (
        AutoencoderKL,
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )

    torch.manual_seed(0)
    transformer = SD3Transformer2DModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        num_layers=4,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=12,
        caption_projection_dim=16,
        pooled_projection_dim=10,
        pos_embed_max_size=8,
    ).eval()
    pipe = StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4).eval(),
        **dict.fromkeys(f"{part}{n}" for part in ("text_encoder", "tokenizer") for n in ("", "_2", "_3")),
    )
    pipe.set_progress_bar_config(disable=True)
    embeds, pooled = torch.randn(2, 6, 12), torch.randn(2, 10)
    return pipe, {
        "prompt_embeds": embeds[:1],
        "negative_prompt_embeds": embeds[1:],
        "pooled_prompt_embeds": pooled[:1],
        "negative_pooled_prompt_embeds": pooled[1:],
    }
