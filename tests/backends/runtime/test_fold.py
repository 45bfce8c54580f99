"""Pipelines of other classes than Stable Diffusion, with their text encoders: as one engine, by components, as one function."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from diffopt.backends import BackendError
from diffopt.backends.runtime import export, export_pipeline, follow_step_plan, fuse_pipeline, witnesses

HEADS: dict[str, int] = {"attention_head_dim": 8, "num_attention_heads": 2}
FIXED: dict[str, Any] = {"steps": 2, "guidance": 3.0, "height": 16, "width": 16}
MORE: dict[str, dict[str, Any]] = {"pixart": {"use_resolution_binning": False, "clean_caption": False}}


def clip(kind: Any, width: int) -> Any:
    return kind(
        CLIPTextConfig(
            vocab_size=64, hidden_size=width, intermediate_size=16, projection_dim=width, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=11, bos_token_id=0, eos_token_id=1, pad_token_id=1,
        )
    ).eval()  # fmt: skip


def vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2, shift_factor=0.1,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, norm_num_groups=4, sample_size=16,
    ).eval()  # fmt: skip


def pixart(tokenizer: Any) -> Any:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), (",", -2.0), ("▁", -6.0), ("▁red", -3.0), ("▁a", -3.0)]
    encoder = T5EncoderModel(
        T5Config(vocab_size=8, d_model=12, d_kv=6, d_ff=16, num_layers=1, num_heads=2, dropout_rate=0.0)
    )
    transformer = PixArtTransformer2DModel(
        num_layers=2, in_channels=4, out_channels=8, cross_attention_dim=16, sample_size=8, caption_channels=12,
        use_additional_conditions=False, **HEADS,
    )  # fmt: skip
    return PixArtSigmaPipeline(
        T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=40),
        encoder.eval(), vae(), varied(transformer), DPMSolverMultistepScheduler(),
    )  # fmt: skip


def sd3(tokenizer: Any) -> Any:
    transformer = SD3Transformer2DModel(
        num_layers=2, in_channels=4, out_channels=4, sample_size=8, joint_attention_dim=16, caption_projection_dim=16,
        pooled_projection_dim=16, pos_embed_max_size=8, **HEADS,
    )  # fmt: skip
    encoders = {f"text_encoder{n}": clip(CLIPTextModelWithProjection, 8) for n in ("", "_2")}
    return StableDiffusion3Pipeline(
        transformer=varied(transformer), scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0), vae=vae(),
        tokenizer=tokenizer, tokenizer_2=tokenizer, text_encoder_3=None, tokenizer_3=None, **encoders,
    )  # fmt: skip


def xl(tokenizer: Any) -> Any:
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(16, 16), down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), layers_per_block=1, cross_attention_dim=16,
        attention_head_dim=2, norm_num_groups=8, addition_embed_type="text_time", addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=32, use_linear_projection=True,
    )  # fmt: skip
    return StableDiffusionXLPipeline(
        vae(), clip(CLIPTextModel, 8), clip(CLIPTextModelWithProjection, 8), tokenizer, tokenizer, unet.eval(),
        EulerDiscreteScheduler(), add_watermarker=False,
    )  # fmt: skip


KINDS = {"pixart": pixart, "sd3": sd3, "xl": xl}


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make(shared_pipe: Any) -> Callable[[str], Any]:
    """Return a function that makes a pipeline of one kind, each time the same."""

    def made(kind: str) -> Any:
        torch.manual_seed(0)
        pipe = KINDS[kind](shared_pipe.tokenizer)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    return made


def varied(transformer: Any) -> Any:
    with torch.no_grad():
        for parameter in transformer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return transformer.eval()


def images(pipe: Any, kind: str, prompt: Any = "a red A,", **arguments: Any) -> torch.Tensor:
    call = {"num_inference_steps": 2, "guidance_scale": 3.0, "height": 16, "width": 16, "output_type": "pt"}
    generator = torch.Generator().manual_seed(0)
    found: torch.Tensor = pipe(prompt, generator=generator, **{**call, **MORE.get(kind, {}), **arguments})[0]
    return found


def details(pipe: Any) -> list[str]:
    return [witness.detail for witness in witnesses(pipe) if witness.transform != "engine-files"]


def test_a_program_makes_the_pictures_of_the_pipeline(make: Callable[[str], Any], kind: str) -> None:
    pipe, plain = fuse_pipeline(make(kind), **FIXED, arguments=MORE.get(kind)), make(kind)
    for prompt in ("a red A,", "", ["  Red", "a"]):
        assert torch.allclose(images(pipe, kind, prompt), images(plain, kind, prompt), atol=1e-5)
    result = images(pipe, kind, return_dict=False), images(plain, kind, return_dict=False)
    assert torch.allclose(*result, atol=1e-5)
    assert details(pipe) == ["pipeline: 5 calls as one function, 0 in torch"]


def test_other_calls_run_as_before(make: Callable[[str], Any], kind: str) -> None:
    pipe, plain = fuse_pipeline(make(kind), **FIXED, arguments=MORE.get(kind)), make(kind)
    asked: tuple[dict[str, Any], ...] = (
        {"num_inference_steps": 1},
        {"negative_prompt": "red"},
        {"guidance_scale": 1.0},
    )
    for other in asked:
        assert torch.equal(images(pipe, kind, **other), images(plain, kind, **other))
    assert details(pipe) == ["pipeline: 0 calls as one function, 3 in torch"]


ENGINES = ["pixart", *(pytest.param(name, marks=pytest.mark.slow) for name in ("sd3", "xl"))]


@pytest.mark.parametrize("kind", ENGINES)
def test_one_engine_makes_the_pictures_of_the_pipeline(make: Callable[[str], Any], kind: str, tmp_path: Path) -> None:
    expected = images(make(kind), kind)
    for _ in range(2):  # built, then found
        pipe = export_pipeline(make(kind), engines=tmp_path, **FIXED, arguments=MORE.get(kind))
        assert torch.allclose(images(pipe, kind), expected, atol=1e-4)
        assert details(pipe) == ["pipeline: 1 engine calls, 0 in torch"]
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pixart"])
def test_onnxruntime_makes_the_same_pictures(make: Callable[[str], Any], kind: str, tmp_path: Path) -> None:
    pipe = export_pipeline(make(kind), backend="onnxruntime", engines=tmp_path, **FIXED, arguments=MORE.get(kind))
    assert torch.allclose(images(pipe, kind), images(make(kind), kind), atol=1e-4)
    assert details(pipe) == ["pipeline: 1 engine calls, 0 in torch"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "backend"), [("pixart", "openvino"), ("sd3", "openvino"), ("xl", "openvino"), ("xl", "onnxruntime")]
)
def test_engines_of_the_components_make_the_pictures_of_the_pipeline(
    make: Callable[[str], Any], kind: str, backend: str, tmp_path: Path
) -> None:
    pipe, plain = make(kind), make(kind)
    for name in ("text_encoder", "denoiser"):
        export(pipe, name, backend=backend, engines=tmp_path, height=16, width=16, arguments=MORE.get(kind))
    for given in ({}, {"guidance_scale": 1.0}, {"prompt": ["a", "red", "a red"]}):
        assert torch.allclose(images(pipe, kind, **given), images(plain, kind, **given), atol=1e-4)
    assert all(detail.endswith(", 0 in torch") for detail in details(pipe))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sd3"])
def test_cached_blocks_become_two_engines_and_one(make: Callable[[str], Any], kind: str, tmp_path: Path) -> None:
    def planned() -> Any:
        return follow_step_plan(make(kind), component="transformer", steps=2, full=[0], blocks=(0, 1))

    expected = images(planned(), kind)
    apart = export(planned(), "transformer", engines=tmp_path, height=16, width=16)
    whole = export_pipeline(planned(), engines=tmp_path, **FIXED)
    for pipe in (apart, whole):
        assert torch.allclose(images(pipe, kind), expected, atol=1e-4)
        assert details(pipe)[-1].endswith("0 in torch")
    assert not torch.allclose(expected, images(make(kind), kind), atol=1e-4)


def test_an_empty_negative_prompt_is_not_none_to_a_pipeline_that_tells_them_apart(make: Callable[[str], Any]) -> None:
    pipe, plain = fuse_pipeline(make("xl"), **FIXED), make("xl")
    assert torch.equal(images(pipe, "xl", negative_prompt=""), images(plain, "xl", negative_prompt=""))
    assert details(pipe) == ["pipeline: 0 calls as one function, 1 in torch"]


def test_a_program_for_an_empty_negative_prompt_is_not_one_for_none(make: Callable[[str], Any]) -> None:
    pipe, plain = fuse_pipeline(make("xl"), **FIXED, negative_prompt=""), make("xl")
    for given in ({"negative_prompt": ""}, {}):
        assert torch.allclose(images(pipe, "xl", **given), images(plain, "xl", **given), atol=1e-5)
    assert details(pipe) == ["pipeline: 1 calls as one function, 1 in torch"]


def test_what_is_given_to_a_call_is_part_of_what_the_program_is_for(make: Callable[[str], Any]) -> None:
    given = {**MORE["pixart"], "max_sequence_length": 20}
    pipe, plain = fuse_pipeline(make("pixart"), **FIXED, arguments=given), make("pixart")
    assert torch.allclose(images(pipe, "pixart", **given), images(plain, "pixart", **given), atol=1e-5)
    images(pipe, "pixart")
    assert details(pipe) == ["pipeline: 1 calls as one function, 1 in torch"]


def test_what_a_pipeline_has_against_a_call_is_one_line(make: Callable[[str], Any], tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="fails: Invalid sample size"):
        export_pipeline(make("pixart"), engines=tmp_path, **FIXED)
    with pytest.raises(BackendError, match="fails: Invalid sample size"):
        export(make("pixart"), "denoiser", engines=tmp_path)


def test_refuses_what_makes_a_program_wrong(make: Callable[[str], Any], tmp_path: Path) -> None:
    pipe = make("xl")
    pipe.watermark = object()
    with pytest.raises(BackendError, match="add_watermarker=False"):
        export_pipeline(pipe, engines=tmp_path, **FIXED)
    turned = make("sd3")
    drawn = turned.prepare_latents
    turned.prepare_latents = lambda *a: drawn(*a).flip(-1) if a[-1] is None else drawn(*a)
    with pytest.raises(BackendError, match="off by"):
        fuse_pipeline(turned, **FIXED)
    assert list(tmp_path.iterdir()) == []
