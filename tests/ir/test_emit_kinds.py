"""Emitted code of each kind of pipeline loads what was saved and makes the same picture, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from diffopt.ir.description import Input, build_module
from diffopt.ir.dialect import components, loops
from diffopt.ir.emit_pipeline import emit_pipeline
from diffopt.ir.identity import parse_module, print_module
from diffopt.ir.source_directory import describe_directory
from diffopt.ir.source_live import describe_live
from diffopt.ir.verify import Stage, verify

pytestmark = pytest.mark.slow


def _clip(shapes: Path, **changes: Any) -> tuple[Any, Any]:
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(shapes / "tokenizer")
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=tokenizer.model_max_length,
        projection_dim=32,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **changes,
    )
    return tokenizer, CLIPTextModelWithProjection(config)


def _vae(channels: int = 4, **changes: Any) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=channels,
        norm_num_groups=4,
        sample_size=32,
        **changes,
    )


def _unet(**changes: Any) -> Any:
    from diffusers import UNet2DConditionModel

    given: dict[str, Any] = {
        "sample_size": 16,
        "block_out_channels": (16, 32),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 1,
        "cross_attention_dim": 32,
        "attention_head_dim": 4,
        "norm_num_groups": 8,
    }
    return UNet2DConditionModel(**(given | changes))


def _stable_diffusion_xl(shapes: Path) -> Any:
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

    tokenizer, encoder = _clip(shapes)
    _, second = _clip(shapes)
    unet = _unet(
        cross_attention_dim=64,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=80,
    )
    from transformers import CLIPTextModel

    return StableDiffusionXLPipeline(
        vae=_vae(),
        text_encoder=CLIPTextModel(encoder.config),
        text_encoder_2=second,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet,
        scheduler=EulerDiscreteScheduler(),
        add_watermarker=False,
    )


def _stable_diffusion_3(shapes: Path) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    tokenizer, encoder = _clip(shapes)
    _, second = _clip(shapes)
    transformer = SD3Transformer2DModel(
        sample_size=16,
        patch_size=1,
        in_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=32,
        caption_projection_dim=32,
        pooled_projection_dim=64,
        out_channels=4,
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_vae(shift_factor=0.0609, scaling_factor=1.5035),
        text_encoder=encoder,
        tokenizer=tokenizer,
        text_encoder_2=second,
        tokenizer_2=tokenizer,
        text_encoder_3=None,
        tokenizer_3=None,
    )


def _dit(_: Path) -> Any:
    from diffusers import DDIMScheduler, DiTPipeline, DiTTransformer2DModel

    transformer = DiTTransformer2DModel(
        sample_size=16,
        num_layers=1,
        patch_size=4,
        attention_head_dim=8,
        num_attention_heads=2,
        in_channels=4,
        out_channels=8,
        attention_bias=True,
        num_embeds_ada_norm=1000,
    )
    return DiTPipeline(transformer=transformer, vae=_vae(), scheduler=DDIMScheduler(clip_sample=False))


def _image_to_image(shapes: Path) -> Any:
    from diffusers import DDIMScheduler, StableDiffusionImg2ImgPipeline
    from transformers import CLIPTextModel

    tokenizer, encoder = _clip(shapes)
    return StableDiffusionImg2ImgPipeline(
        vae=_vae(),
        text_encoder=CLIPTextModel(encoder.config),
        tokenizer=tokenizer,
        unet=_unet(),
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _control_net(shapes: Path) -> Any:
    from diffusers import ControlNetModel, DDIMScheduler, StableDiffusionControlNetPipeline
    from transformers import CLIPTextModel

    tokenizer, encoder = _clip(shapes)
    unet = _unet()
    return StableDiffusionControlNetPipeline(
        vae=_vae(),
        text_encoder=CLIPTextModel(encoder.config),
        tokenizer=tokenizer,
        unet=unet,
        controlnet=ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(16, 32)),
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _picture() -> Any:
    import numpy as np
    from PIL import Image

    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8))


MADE: dict[str, tuple[Callable[[Path], Any], dict[str, Any], tuple[Input, ...]]] = {
    "sdxl": (_stable_diffusion_xl, {"prompt": "a red circle"}, ()),
    "sd3": (_stable_diffusion_3, {"prompt": "a red circle"}, ()),
    "dit": (_dit, {"class_labels": [3]}, (Input("class_labels", "other"),)),
    "image-to-image": (_image_to_image, {"prompt": "a red circle", "image": None}, (Input("image", "image"),)),
    "control-net": (_control_net, {"prompt": "a red circle", "image": None}, (Input("image", "control"),)),
}


@pytest.mark.parametrize("kind", MADE)
def test_the_emitted_pipeline_makes_the_same_picture(kind: str, tmp_path: Path, shapes_directory: Path) -> None:
    import diffusers
    import numpy as np
    import torch

    make, call, inputs = MADE[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        make(shapes_directory).save_pretrained(tmp_path / "model")
    steps = 2 if kind != "image-to-image" else 4
    size: dict[str, Any] = {} if kind in ("dit", "image-to-image") else {"height": 32, "width": 32}
    described = replace(describe_directory(tmp_path / "model", steps=steps, **size), inputs=inputs)
    if kind == "image-to-image":
        described = replace(described, arguments={"strength": 0.5})
    module = build_module(described)
    text = print_module(module)
    assert print_module(parse_module(text)) == text
    assert verify(module, Stage.EMITTABLE) == ()
    code = emit_pipeline(module)
    namespace: dict[str, Any] = {"__file__": str(tmp_path / "pipeline.py"), "__name__": "emitted"}
    exec(compile(code, "pipeline.py", "exec"), namespace)  # noqa: S102 - it is what this test is about
    emitted = namespace["load"]()
    original = getattr(diffusers, described.pipeline_class.split(".")[1]).from_pretrained(
        tmp_path / "model",
        dtype=torch.float32,
        **({"text_encoder_3": None, "tokenizer_3": None} if kind == "sd3" else {}),
    )
    given = {key: _picture() if value is None else value for key, value in call.items()}
    arguments: dict[str, Any] = {"num_inference_steps": steps, **size}
    if kind == "image-to-image":
        arguments["strength"] = 0.5

    def run(pipe: Any, **more: Any) -> Any:
        pipe.set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed(7)
        return pipe(**given, generator=generator, output_type="np", **more).images

    expected = run(original, **arguments)
    assert np.isfinite(expected).all()
    assert np.array_equal(run(emitted), expected)
    live = describe_live(emitted, steps=steps, **size)
    assert live.pipeline_class == described.pipeline_class
    assert {part.name for part in live.components} == {part.name for part in described.components}
    assert {part.class_name for part in live.components} == {part.class_name for part in described.components}


def test_two_text_encoders_condition_every_call(tmp_path: Path, shapes_directory: Path) -> None:
    _stable_diffusion_xl(shapes_directory).save_pretrained(tmp_path / "model")
    module = build_module(describe_directory(tmp_path / "model"))
    (loop,) = loops(module)
    assert [len(predict.conditions) for predict in loop.predicts] == [2, 2]
    assert components(module)["pipeline"].values["height"] == 32
