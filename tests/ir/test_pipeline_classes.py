"""What is read off the source of the installed diffusers agrees with what importing it would say."""

from __future__ import annotations

import ast
import subprocess
import sys
import time

import pytest

from diffopt.ir.pipeline_classes import auto_pipelines, example_docs, pipeline_class, pipeline_classes

SPECIAL = ("self", "kwargs")


def test_a_class_names_its_components_as_model_index_json_does() -> None:
    found = pipeline_class("diffusers.StableDiffusionPipeline")
    assert found is not None
    assert found.file == "pipelines/stable_diffusion/pipeline_stable_diffusion.py"
    assert found.components["text_encoder"] == ("transformers.CLIPTextModel",)
    assert found.components["unet"] == ("diffusers.UNet2DConditionModel",)
    assert found.components["safety_checker"] == ("stable_diffusion.StableDiffusionSafetyChecker",)
    assert found.optional == {"safety_checker", "feature_extractor", "image_encoder"}
    assert found.settings == {"requires_safety_checker": True}


def test_a_union_of_classes_is_read_in_order() -> None:
    found = pipeline_class("FluxControlNetPipeline")
    assert found is not None
    assert found.components["controlnet"] == ("diffusers.FluxControlNetModel", "diffusers.FluxMultiControlNetModel")


def test_call_parameters_keep_their_order_and_literal_defaults() -> None:
    found = pipeline_class("StableDiffusionPipeline")
    assert found is not None
    assert list(found.call)[:4] == ["prompt", "height", "width", "num_inference_steps"]
    assert found.call["num_inference_steps"] == 50
    assert found.call["callback_on_step_end_tensor_inputs"] == ["latents"]
    assert found.call_types["ip_adapter_image"] == "PipelineImageInput | None"


def test_what_a_base_class_defines_is_inherited() -> None:
    heir = pipeline_class("StableDiffusionPipelineSafe")
    assert heir is not None
    assert "num_inference_steps" in heir.call


@pytest.mark.parametrize(
    "name", ["NoSuchPipeline", "", "DiffusionPipeline", "StableDiffusionMixin", "a b", "é", "UNet"]
)
def test_what_is_no_pipeline_class_is_none(name: str) -> None:
    assert pipeline_class(name) is None


def test_one_class_costs_little_and_imports_nothing_heavy() -> None:
    code = (
        "import time; from diffopt.ir.pipeline_classes import pipeline_class; import sys; start = time.process_time();"
        "pipeline_class('StableDiffusionPipeline'); print(time.process_time() - start);"
        "print([m for m in ('torch', 'diffusers', 'xdsl') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, heavy = done.stdout.splitlines()
    assert float(seconds) < 0.15
    assert heavy == "[]"


def test_an_auto_class_builds_the_class_of_its_task() -> None:
    found = auto_pipelines()
    assert found["AutoPipelineForText2Image"]["StableDiffusionXLPipeline"] == "StableDiffusionXLPipeline"
    assert found["AutoPipelineForImage2Image"]["StableDiffusionPipeline"] == "StableDiffusionImg2ImgPipeline"
    assert found["AutoPipelineForInpainting"]["FluxPipeline"] == "FluxInpaintPipeline"


@pytest.mark.slow
def test_static_facts_agree_with_the_imported_classes() -> None:
    import inspect

    import diffusers
    from diffusers.pipelines.auto_pipeline import AutoPipelineForImage2Image, _get_task_class

    exported = [
        name
        for name in ("StableDiffusionXLPipeline", "FluxImg2ImgPipeline", "WanPipeline", "KandinskyV22CombinedPipeline")
        if hasattr(diffusers, name)
    ]
    for name in exported:
        found, real = pipeline_class(name), getattr(diffusers, name)
        assert found is not None
        assert list(found.call) == [p for p in inspect.signature(real.__call__).parameters if p not in SPECIAL]
        required, optional = real._get_signature_keys(real)
        assert set(found.components) == set(required) - set(found.settings)
        assert set(found.settings) <= set(optional) | set(required)
    table = auto_pipelines()["AutoPipelineForImage2Image"]
    mapping = diffusers.pipelines.auto_pipeline.AUTO_IMAGE2IMAGE_PIPELINES_MAPPING
    found_tasks = {model: _get_task_class(mapping, model, throw_error_if_not_exist=False) for model in table}
    # diffusers leaves entries out where an optional package is missing (Kolors without sentencepiece).
    present = {model: task.__name__ for model, task in found_tasks.items() if task is not None}
    assert present == {model: table[model] for model in present}
    assert len(present) > 0.9 * len(table)
    assert AutoPipelineForImage2Image.__name__ in auto_pipelines()


@pytest.mark.slow
def test_every_class_is_found_and_quickly_enough() -> None:
    start = time.process_time()
    names = pipeline_classes()
    assert len(names) > 200
    assert all(pipeline_class(name) is not None for name in names)
    assert time.process_time() - start < 60


@pytest.mark.slow
def test_examples_parse_and_know_their_place() -> None:
    examples = list(example_docs())
    names = set(pipeline_classes())
    assert len(examples) > 250
    assert {name for name, _, _, _ in examples} <= names
    broken = []
    for name, _, _, code in examples:
        try:
            ast.parse(code)
        except SyntaxError:
            broken.append(name)
    assert broken == ["OvisImagePipeline"], "its prompt holds an apostrophe that ends the string"
