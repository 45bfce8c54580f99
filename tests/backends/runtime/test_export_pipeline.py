from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from diffusers import (
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    UniPCMultistepScheduler,
)

from diffopt.backends import BackendError
from diffopt.backends.runtime import call_defaults, export, export_pipeline, follow_step_plan, quantize, witnesses

Picture = Callable[..., torch.Tensor]
CALL: dict[str, Any] = {"steps": 4, "guidance": 3.0, "height": 24, "width": 16}


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One engine folder for the module: engines are found again, not built again."""
    return tmp_path_factory.mktemp("engines")


@pytest.fixture
def exported(load: Callable[[], Any], engines: Path) -> Any:
    return export_pipeline(load(), engines=engines, **CALL)


def details(pipe: Any) -> list[str]:
    return [witness.detail for witness in witnesses(pipe) if witness.transform != "engine-files"]


def test_one_engine_makes_the_pictures_the_pipeline_makes(
    load: Callable[[], Any], exported: Any, picture: Picture
) -> None:
    for prompt in ("a red circle", "", "a " * 40, ["a", "a red circle", "blue!"]):
        assert torch.allclose(picture(exported, prompt), picture(load(), prompt), atol=1e-4)
    assert details(exported) == ["pipeline: 6 engine calls, 0 in torch"]


def test_each_size_that_was_asked_for_has_an_engine(load: Callable[[], Any], engines: Path, picture: Picture) -> None:
    pipe = export_pipeline(load(), engines=engines, sizes=[(32, 16)], **CALL)
    for size in ({"height": 24, "width": 16}, {"height": 32, "width": 16}):
        assert torch.allclose(picture(pipe, **size), picture(load(), **size), atol=1e-4)
    assert details(pipe) == ["pipeline: 1 engine calls, 0 in torch; by those of other sizes: 1"]
    picture(pipe, height=16, width=16)
    assert details(pipe) == ["pipeline: 1 engine calls, 1 in torch; by those of other sizes: 1"]


def test_the_engine_says_which_files_it_came_from(exported: Any, engines: Path) -> None:
    (named,) = [witness for witness in witnesses(exported) if witness.transform == "engine-files"]
    assert named.count == 1
    assert (engines / named.detail / "engine.json").is_file()


def test_every_output_type_is_the_pipelines_own(load: Callable[[], Any], exported: Any, picture: Picture) -> None:
    plain = load()
    for kind in ("np", "pil"):
        mine, theirs = picture(exported, output_type=kind), picture(plain, output_type=kind)
        assert type(mine) is type(theirs)
        assert numpy.abs(numpy.asarray(mine[0], float) - numpy.asarray(theirs[0], float)).max() <= 1
    post = plain.image_processor.postprocess(picture(exported) * 2 - 1, output_type="pil")
    assert (
        numpy.abs(numpy.asarray(post[0], int) - numpy.asarray(picture(exported, output_type="pil")[0], int)).max() == 0
    )


def test_generators_latents_and_tuples_work_as_before(load: Callable[[], Any], exported: Any, picture: Picture) -> None:
    def both(**arguments: Any) -> bool:
        seeds = arguments.pop("seeds", None)
        prompts = ["a red circle", "a"]
        results = []
        for pipe in (exported, load()):
            generator = [torch.Generator().manual_seed(seed) for seed in seeds] if seeds else None
            call = {"num_inference_steps": 4, "guidance_scale": 3.0, "output_type": "pt", "return_dict": False}
            results.append(pipe(prompts, generator=generator, **call, **arguments))
        assert results[0][1] is results[1][1] is None
        return torch.allclose(results[0][0], results[1][0], atol=1e-4)

    assert both(seeds=[1, 2])
    assert both(latents=torch.randn(2, 4, 12, 8))
    assert both(latents=torch.randn(2, 4, 12, 8), eta=0.0, negative_prompt=["", ""], num_images_per_prompt=1)
    assert details(exported) == ["pipeline: 6 engine calls, 0 in torch"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"num_inference_steps": 5}, "num_inference_steps is 5, the engine's is 4"),
        ({"guidance_scale": 2.0}, "guidance_scale is 2.0, the engine's is 3.0"),
        ({"height": 32}, "height is 32, the engine's is 24"),
        ({"negative_prompt": "blue"}, "negative_prompt is not what the engine was made for"),
        ({"num_images_per_prompt": 2}, "num_images_per_prompt is not what the engine was made for"),
        ({"guidance_rescale": 0.5}, "guidance_rescale is not what the engine was made for"),
        ({"output_type": "latent"}, "output_type is latent"),
        ({"callback_on_step_end": lambda pipe, step, time, values: values}, "callback_on_step_end is not"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_all_else_runs_in_torch_and_says_so_once(
    load: Callable[[], Any], exported: Any, picture: Picture, caplog: pytest.LogCaptureFixture,
    arguments: dict[str, Any], reason: str,
) -> None:  # fmt: skip
    expected = picture(load(), **arguments)
    for _ in range(2):
        assert torch.allclose(picture(exported, **arguments), expected, atol=1e-6)
    said = [record.getMessage() for record in caplog.records if record.name == "diffopt"]
    assert len(said) == 1
    assert reason in said[0]
    assert details(exported) == ["pipeline: 0 engine calls, 2 in torch"]


def test_a_changed_pipeline_is_noticed(load: Callable[[], Any], engines: Path, picture: Picture) -> None:
    for change in (
        lambda pipe: setattr(pipe, "scheduler", UniPCMultistepScheduler.from_config(pipe.scheduler.config)),
        lambda pipe: setattr(pipe, "vae", load().vae),
        lambda pipe: pipe.scheduler.register_to_config(prediction_type="epsilon"),
    ):
        pipe, plain = export_pipeline(load(), engines=engines, **CALL), load()
        change(pipe)
        change(plain)
        assert torch.equal(picture(pipe), picture(plain))


def test_defaults_and_engine_meet(exported: Any, picture: Picture) -> None:
    expected = picture(exported)
    call_defaults(exported, num_inference_steps=4, guidance_scale=3.0, height=24, width=16, output_type="pt")
    assert torch.equal(exported("a red circle", generator=torch.Generator().manual_seed(0)).images, expected)


def test_a_step_plan_is_folded_in(load: Callable[[], Any], engines: Path, picture: Picture) -> None:
    plan: dict[str, Any] = {"steps": 4, "full": [0, 2], "guided": range(2), "branch": 1}
    expected = picture(follow_step_plan(load(), **plan))
    pipe = export_pipeline(follow_step_plan(load(), **plan), engines=engines, **CALL)
    assert torch.allclose(picture(pipe), expected, atol=1e-4)
    assert not torch.allclose(expected, picture(load()), atol=1e-4)
    assert details(pipe) == [
        "2 of 4 denoiser calls with cached features",
        "2 of 4 denoiser calls without the unconditional half",
        "pipeline: 1 engine calls, 0 in torch",
    ]
    assert torch.allclose(picture(pipe, num_inference_steps=3), picture(load(), num_inference_steps=3), atol=1e-6)


def test_a_scheduler_is_folded_in(load: Callable[[], Any], engines: Path, picture: Picture) -> None:
    def scheduled() -> Any:
        pipe = load()
        pipe.scheduler = DEISMultistepScheduler.from_config(pipe.scheduler.config, timestep_spacing="trailing")
        return pipe

    pipe = export_pipeline(scheduled(), engines=engines, **{**CALL, "steps": 3})
    expected = picture(scheduled(), num_inference_steps=3)
    assert torch.allclose(picture(pipe, num_inference_steps=3), expected, atol=1e-4)
    assert details(pipe) == ["pipeline: 1 engine calls, 0 in torch"]


FOLDED: dict[str, tuple[Any, dict[str, Any]]] = {
    "forecast": (DPMSolverMultistepScheduler, {"full": [0, 1, 3], "order": 1}),
    "gate": (UniPCMultistepScheduler, {"full": range(2), "guided": range(2), "cross_attention": True}),
    "reused half": (EulerDiscreteScheduler, {"fresh": [0, 2], "full": [0, 3]}),
    "halves apart": (DEISMultistepScheduler, {"apart": True, "guided": range(3)}),
}


@pytest.mark.slow
@pytest.mark.parametrize(("scheduler", "plan"), FOLDED.values(), ids=list(FOLDED))
def test_every_kind_of_plan_is_folded_in_with_any_scheduler(
    load: Callable[[], Any], engines: Path, picture: Picture, scheduler: Any, plan: dict[str, Any]
) -> None:
    def planned() -> Any:
        pipe = load()
        pipe.scheduler = scheduler.from_config(pipe.scheduler.config, timestep_spacing="trailing")
        return follow_step_plan(pipe, steps=4, **plan)

    expected = picture(planned())
    pipe = export_pipeline(planned(), engines=engines, **CALL)
    assert torch.allclose(picture(pipe), expected, atol=1e-4)
    assert details(pipe)[-1] == "pipeline: 1 engine calls, 0 in torch"


@pytest.mark.slow
def test_guidance_off_and_a_negative_prompt_are_folded_in(
    load: Callable[[], Any], engines: Path, picture: Picture
) -> None:
    for call in ({"guidance_scale": 1.0}, {"guidance_scale": 3.0, "negative_prompt": "blue"}):
        settings = {**CALL, "steps": 2, "guidance": call["guidance_scale"]}
        pipe = export_pipeline(
            load(), engines=engines, negative_prompt=str(call.get("negative_prompt", "")), **settings
        )
        expected = picture(load(), num_inference_steps=2, **call)
        assert torch.allclose(picture(pipe, num_inference_steps=2, **call), expected, atol=1e-4)
        assert details(pipe) == ["pipeline: 1 engine calls, 0 in torch"]


@pytest.mark.slow
def test_quantized_weights_are_folded_in(load: Callable[[], Any], engines: Path, picture: Picture) -> None:
    expected = picture(quantize(load(), "unet"), num_inference_steps=2)
    pipe = export_pipeline(quantize(load(), "unet"), engines=engines, **{**CALL, "steps": 2})
    assert torch.allclose(picture(pipe, num_inference_steps=2), expected, atol=1e-4)


SCRIPT = """
import hashlib, sys
from pathlib import Path
import torch
from diffusers import StableDiffusionPipeline
from diffopt.backends.runtime import export_pipeline
pipe = StableDiffusionPipeline.from_pretrained(sys.argv[1], dtype=torch.float32, safety_checker=None)
export_pipeline(pipe, engines=Path(sys.argv[2]), precision="bf16", steps=4, guidance=3.0, height=24, width=16)
call = dict(num_inference_steps=4, guidance_scale=3.0, output_type="pt")
image = pipe("a red circle", generator=torch.Generator().manual_seed(0), **call).images
print(hashlib.sha256(image.numpy().tobytes()).hexdigest())
print([name for name in ("xdsl", "libcst", "openai") if name in sys.modules])
telemetry = sys.modules.get("openvino_telemetry.main")
print(telemetry and telemetry.Telemetry._SingletonMetaClass__single_instance)
"""


@pytest.mark.slow
def test_a_fresh_process_makes_the_same_bits(
    load: Callable[[], Any], tiny_directory: Path, tmp_path: Path, picture: Picture
) -> None:
    pipe = export_pipeline(load(), engines=tmp_path, precision="bf16", **CALL)
    here = hashlib.sha256(picture(pipe).numpy().tobytes()).hexdigest()
    (model,) = tmp_path.glob("*/model.bin")  # the manifest's time is that of the last use
    written = model.stat().st_mtime_ns
    command = [sys.executable, "-c", SCRIPT, str(tiny_directory), str(tmp_path)]
    there = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert there == [here, "[]", "None"]
    assert model.stat().st_mtime_ns == written


@pytest.mark.slow
def test_onnxruntime_makes_the_same_pictures(load: Callable[[], Any], tmp_path: Path, picture: Picture) -> None:
    pipe = export_pipeline(load(), backend="onnxruntime", engines=tmp_path, **{**CALL, "steps": 2})
    expected = picture(load(), num_inference_steps=2)
    assert torch.allclose(picture(pipe, num_inference_steps=2), expected, atol=1e-4)
    assert details(pipe) == ["pipeline: 1 engine calls, 0 in torch"]


def test_refuses_a_scheduler_that_draws_noise_in_its_steps(pipe: Any, tmp_path: Path) -> None:
    pipe.scheduler = EulerAncestralDiscreteScheduler.from_config(pipe.scheduler.config)
    with pytest.raises(BackendError, match="draws noise in its steps"):
        export_pipeline(pipe, engines=tmp_path, **CALL)
    assert list(tmp_path.iterdir()) == []


def test_refuses_components_that_are_engines_already(pipe: Any, tmp_path: Path) -> None:
    export(pipe, "vae", engines=tmp_path)
    with pytest.raises(BackendError, match="vae: export was applied already"):
        export_pipeline(pipe, engines=tmp_path, **CALL)


def test_refuses_pipelines_of_other_classes(pipe: Any, tmp_path: Path) -> None:
    from diffusers import StableDiffusionImg2ImgPipeline

    pipe.unet.register_to_config(sample_size=12)
    other = StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
    with pytest.raises(BackendError, match="StableDiffusionImg2ImgPipeline cannot become one engine yet"):
        export_pipeline(other, engines=tmp_path, **CALL)


def test_a_profile_tells_the_calls_of_the_parts_apart(exported: Any, engines: Path) -> None:
    from diffopt.backends.base import EngineOptions
    from diffopt.backends.openvino_profile import REST, profile

    (named,) = [witness for witness in witnesses(exported) if witness.transform == "engine-files"]
    found, seconds = profile(engines / named.detail, EngineOptions(), runs=3)
    assert seconds > 0
    assert {name.split("#")[0] for name in found} == {"text_encoder", "unet", "vae", REST}
    assert sum(name.startswith("unet#") for name in found) > 1
    assert all(value >= 0 for value in found.values())
