"""What is remembered between steps and requests changes no bit, and is forgotten when it must be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from diffopt.backends import BackendError
from diffopt.backends.runtime import (
    constant_embeddings,
    follow_step_plan,
    hoist_cross_attention,
    reuse_prompt_embeddings,
    witnesses,
)

Picture = Callable[..., torch.Tensor]
Load = Callable[[], Any]

APPLY: dict[str, Callable[[Any], Any]] = {
    "reuse_prompt_embeddings": lambda pipe: reuse_prompt_embeddings(pipe, "text_encoder", entries=2),
    "hoist_cross_attention": lambda pipe: hoist_cross_attention(pipe, "denoiser"),
    "constant_embeddings": lambda pipe: constant_embeddings(pipe, "denoiser"),
}
each = pytest.mark.parametrize("name", APPLY)


@each
def test_requests_in_a_row_are_those_of_a_fresh_pipeline(load: Load, picture: Picture, name: str) -> None:
    pipe, plain = APPLY[name](load()), load()
    requests: list[dict[str, Any]] = [
        {"seed": 1},
        {"seed": 1},
        {"prompt": "are", "seed": 2},
        {"num_inference_steps": 3},
        {"prompt": ["a red", "are"], "seed": 3},
        {"guidance_scale": 1.0},
        {"negative_prompt": "red"},
        {"seed": 1},
    ]
    for request in requests:
        assert torch.equal(picture(pipe, **request), picture(plain, **request)), request
    (witness,) = witnesses(pipe)
    assert witness.transform == name
    assert witness.count > 0


@each
def test_a_request_that_raises_midway_leaves_nothing_behind(load: Load, picture: Picture, name: str) -> None:
    pipe, plain = APPLY[name](load()), load()

    def stop(*_: Any) -> Any:
        raise RuntimeError("stop here")

    with pytest.raises(RuntimeError, match="stop here"):
        picture(pipe, callback_on_step_end=stop)
    assert torch.equal(picture(pipe, prompt="red"), picture(plain, prompt="red"))


@each
def test_new_weights_are_seen(load: Load, picture: Picture, name: str) -> None:
    pipe, plain = APPLY[name](load()), load()
    picture(pipe)
    for each_pipe in (pipe, plain):
        with torch.no_grad():
            for part in (each_pipe.unet, each_pipe.text_encoder):
                for parameter in part.parameters():
                    parameter.mul_(1.01)
    assert torch.equal(picture(pipe), picture(plain))


@each
def test_two_pipelines_that_share_parts_make_the_images_of_two_that_do_not(
    load: Load, picture: Picture, name: str
) -> None:
    first, plain = APPLY[name](load()), load()
    second = type(plain)(**first.components, requires_safety_checker=False)
    second.set_progress_bar_config(disable=True)
    for pipe in (first, second, first, second):
        assert torch.equal(picture(pipe, prompt="red"), picture(plain, prompt="red"))


@each
def test_is_not_applied_twice(pipe: Any, name: str) -> None:
    APPLY[name](pipe)
    with pytest.raises(BackendError, match="already"):
        APPLY[name](pipe)


@pytest.mark.parametrize("name", ["hoist_cross_attention", "constant_embeddings"])
def test_works_with_a_plan_of_guidance_and_cache(load: Load, picture: Picture, name: str) -> None:
    plan: dict[str, Any] = {"steps": 4, "full": [0, 2], "guided": [0, 1]}
    pipe = follow_step_plan(APPLY[name](load()), **plan)
    plain = follow_step_plan(load(), **plan)
    for seed in (1, 2):
        assert torch.equal(picture(pipe, seed=seed), picture(plain, seed=seed))


def test_the_negative_prompt_is_encoded_once_and_the_oldest_text_is_forgotten(pipe: Any, picture: Picture) -> None:
    reuse_prompt_embeddings(pipe, "text_encoder", entries=2)
    for prompt in ("a", "red", "are", "a"):
        picture(pipe, prompt=prompt, num_inference_steps=1)
    (witness,) = witnesses(pipe)
    assert witness.detail == "text_encoder: 3 of 8 texts answered from memory"


def test_a_text_that_was_written_into_is_encoded_again(pipe: Any, picture: Picture) -> None:
    plain = picture(pipe)
    reuse_prompt_embeddings(pipe, "text_encoder")
    picture(pipe)
    ids = pipe.tokenizer(
        "a red circle", padding="max_length", max_length=pipe.tokenizer.model_max_length, return_tensors="pt"
    ).input_ids
    with torch.no_grad():
        pipe.text_encoder(ids, attention_mask=None)[0].zero_()
    assert torch.equal(picture(pipe), plain)


def test_the_prompt_is_projected_once_a_request(pipe: Any, picture: Picture) -> None:
    hoist_cross_attention(pipe, "unet")
    picture(pipe, num_inference_steps=4)
    (witness,) = witnesses(pipe)
    layers = sum(bool(getattr(part, "is_cross_attention", False)) for part in pipe.unet.modules())
    assert witness.count == 3 * 2 * layers


def test_a_unet_whose_time_embedding_takes_more_in_is_refused(pipe: Any) -> None:
    pipe.unet.register_to_config(addition_embed_type="text_time")
    with pytest.raises(BackendError, match="depends on more than the timestep"):
        constant_embeddings(pipe, "unet")


def test_a_transformer_looks_its_modulation_up_in_every_request_but_the_first(tiny_of: Any, latents: Any) -> None:
    (pipe, call), (plain, _) = tiny_of("pixart"), tiny_of("pixart")
    constant_embeddings(pipe, "denoiser")
    for seed, steps in ((1, 4), (2, 4), (3, 3)):
        expected = latents(plain, call, seed=seed, num_inference_steps=steps)
        assert torch.equal(latents(pipe, call, seed=seed, num_inference_steps=steps), expected)
    (witness,) = witnesses(pipe)
    assert witness.detail.startswith("transformer: 5 of 11 layers"), "the third shares one timestep"
    with torch.no_grad():
        for one in (pipe, plain):
            one.transformer.adaln_single.linear.weight.mul_(2)
    assert torch.equal(latents(pipe, call, seed=1), latents(plain, call, seed=1)), "other weights"


def test_a_transformer_that_takes_the_size_of_the_image_in_is_refused(tiny_of: Any) -> None:
    pipe, _ = tiny_of("pixart")
    pipe.transformer.adaln_single.emb.use_additional_conditions = True
    with pytest.raises(BackendError, match=r"more than the timestep .use_additional_conditions"):
        constant_embeddings(pipe, "denoiser")
    with pytest.raises(BackendError, match="no UNet2DConditionModel and no PixArt"):
        constant_embeddings(tiny_of("flux")[0], "denoiser")


def test_a_transformer_projects_its_prompt_once_a_request() -> None:
    from diffusers import AutoencoderKL, DDIMScheduler, PixArtAlphaPipeline, PixArtTransformer2DModel

    def made() -> Any:
        torch.manual_seed(0)
        transformer = PixArtTransformer2DModel(
            sample_size=8,
            num_layers=2,
            patch_size=2,
            attention_head_dim=8,
            num_attention_heads=2,
            caption_channels=16,
            in_channels=4,
            cross_attention_dim=16,
            out_channels=8,
            num_embeds_ada_norm=1000,
        )
        vae = AutoencoderKL(
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            norm_num_groups=4,
        )
        pipe = PixArtAlphaPipeline(None, None, vae, transformer.eval(), DDIMScheduler(clip_sample=False))
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def picture(pipe: Any) -> torch.Tensor:
        text = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(1))
        mask = torch.ones(1, 5)
        images: torch.Tensor = pipe(
            prompt=None,
            prompt_embeds=text[:1],
            prompt_attention_mask=mask,
            negative_prompt=None,
            negative_prompt_embeds=text[1:],
            negative_prompt_attention_mask=mask,
            num_inference_steps=3,
            height=16,
            width=16,
            use_resolution_binning=False,
            generator=torch.Generator().manual_seed(0),
            output_type="latent",
        ).images
        return images

    pipe = hoist_cross_attention(made(), "denoiser")
    assert torch.equal(picture(pipe), picture(made()))
    (witness,) = witnesses(pipe)
    # Two layers' keys and values, and the caption's own projection, at two of three steps.
    assert witness.count == 2 * (2 * 2 + 1)
