"""Kernels in the place of layers: the same pictures, and a witness that says where they ran."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)

from diffopt.backends.base import BackendError
from diffopt.backends.kernels import launching
from diffopt.backends.runtime import (
    fuse_geglu,
    fuse_group_norm,
    fuse_modulation,
    fuse_qk_norm,
    witnesses,
)

OF_TRANSFORMERS = {"pixart": (fuse_modulation,), "flux": (fuse_modulation, fuse_qk_norm), "sd3": (fuse_modulation,)}


@pytest.fixture
def without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with neither a GPU nor the interpreter."""
    monkeypatch.setattr(launching, "interpreted", lambda: False)
    monkeypatch.setattr(launching, "on_triton", lambda *tensors: False)
    for kernel in ("geglu", "group_norm", "modulate", "norm_rope"):
        monkeypatch.setattr(f"diffopt.backends.kernels.{kernel}.on_triton", lambda *tensors: False)


@pytest.mark.usefixtures("without_triton")
def test_without_a_gpu_a_unet_computes_what_it_did_bit_for_bit_and_says_so(
    load: Callable[[], Any], picture: Callable[..., Any]
) -> None:
    plain, pipe = load(), load()
    fuse_geglu(fuse_group_norm(fuse_group_norm(pipe, "denoiser"), "vae"), "denoiser")
    assert torch.equal(picture(pipe), picture(plain))
    assert [witness.count for witness in witnesses(pipe)] == [0, 0, 0]
    assert all("no Triton here" in witness.detail for witness in witnesses(pipe))


@pytest.mark.usefixtures("without_triton")
@pytest.mark.parametrize("kind", OF_TRANSFORMERS)
def test_without_a_gpu_a_transformer_computes_what_it_did(
    tiny_of: Callable[[str], Any], latents: Callable[..., torch.Tensor], kind: str
) -> None:
    pipe, call = tiny_of(kind)
    plain = latents(pipe, call)
    for fuse in OF_TRANSFORMERS[kind]:
        fuse(pipe, "denoiser")
    assert torch.allclose(latents(pipe, call), plain, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", OF_TRANSFORMERS)
def test_in_the_interpreter_a_transformer_computes_what_it_did(
    tiny_of: Callable[[str], Any], latents: Callable[..., torch.Tensor], kind: str
) -> None:
    pipe, call = tiny_of(kind)
    plain = latents(pipe, call, num_inference_steps=1)
    for fuse in OF_TRANSFORMERS[kind]:
        fuse(pipe, "denoiser")
    assert torch.allclose(latents(pipe, call, num_inference_steps=1), plain, rtol=1e-4, atol=1e-4)
    assert all(witness.count > 0 for witness in witnesses(pipe))


@pytest.mark.slow
def test_in_the_interpreter_a_unet_computes_what_it_did(load: Callable[[], Any], picture: Callable[..., Any]) -> None:
    plain, pipe = load(), load()
    fuse_geglu(fuse_group_norm(fuse_group_norm(pipe, "denoiser"), "vae"), "denoiser")
    steps = {"num_inference_steps": 1}
    assert torch.allclose(picture(pipe, **steps), picture(plain, **steps), rtol=1e-4, atol=1e-4)
    assert all(witness.count > 0 for witness in witnesses(pipe))


def test_is_not_done_twice_nor_where_there_is_nothing_to_do(pipe: Any) -> None:
    fuse_geglu(pipe, "denoiser")
    with pytest.raises(BackendError, match="fuse_geglu cannot follow fuse_geglu"):
        fuse_geglu(pipe, "denoiser")
    with pytest.raises(BackendError, match="has no adaptive norms that a kernel could take"):
        fuse_modulation(pipe, "denoiser")
    with pytest.raises(BackendError, match="has no attention layers"):
        fuse_qk_norm(pipe, "denoiser")


@pytest.mark.usefixtures("without_triton")
@pytest.mark.parametrize("joined", [False, True], ids=["apart", "fused-projections"])
def test_queries_of_stable_diffusion_3_are_normed_as_before(joined: bool) -> None:
    torch.manual_seed(0)
    transformer = SD3Transformer2DModel(
        num_layers=2, in_channels=4, out_channels=4, sample_size=8, joint_attention_dim=12, caption_projection_dim=16,
        pooled_projection_dim=10, pos_embed_max_size=8, qk_norm="rms_norm", dual_attention_layers=(0,),
        attention_head_dim=8, num_attention_heads=2,
    ).eval()  # fmt: skip
    given = {
        "hidden_states": torch.randn(2, 4, 8, 8),
        "encoder_hidden_states": torch.randn(2, 6, 12),
        "pooled_projections": torch.randn(2, 10),
        "timestep": torch.tensor([500, 500]),
    }
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4)
    pipe = StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae,
        **dict.fromkeys(f"{part}{n}" for part in ("text_encoder", "tokenizer") for n in ("", "_2", "_3")),
    )
    with torch.no_grad():
        plain = transformer(**given).sample
        if joined:
            transformer.fuse_qkv_projections()
        fuse_modulation(fuse_qk_norm(pipe, "denoiser"), "denoiser")
        assert torch.allclose(transformer(**given).sample, plain, rtol=1e-5, atol=1e-5)
    assert {type(part.processor).__name__ for part in transformer.modules() if hasattr(part, "processor")} == {
        "JointProcessor"
    }
